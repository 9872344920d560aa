"""Whether the channels that a rule binds are those of its pipeline's model."""

from __future__ import annotations

from collections.abc import Sequence

from app.errors import SettingsError
from app.settings_pipeline import RuleSettings


def check_channels(rule: RuleSettings, model: str, channels: Sequence[str]) -> None:
    """Refuse a rule that does not bind each channel of the model; one with a single channel needs no binding.

    Parameters
    ----------
    model
        Its name.
    channels
        The names of its input channels, in the network's order.

    Raises
    ------
    SettingsError
        If channels are missing or unknown; the message lists those of the model and those of the rule. If the model
        gives two channels one name, or none, so that no rule could tell them apart.
    """
    expected = ", ".join(channels)
    if len(channels) > 1 and (len(set(channels)) < len(channels) or not all(channels)):
        raise SettingsError(
            f"rule '{rule.name}': the model {model} has the input channels {expected}; "
            "give each a name of its own in its dataset.json"
        )
    if not rule.channels and len(channels) > 1:
        raise SettingsError(
            f"rule '{rule.name}' binds no channels, and the model {model} has {len(channels)}: {expected}; say in "
            'a table "channels" of the rule which series each reads'
        )
    if rule.channels and set(rule.channels) != set(channels):
        raise SettingsError(
            f"rule '{rule.name}' binds the channels {', '.join(rule.channels)}; the model {model} has {expected}"
        )
