"""Which series of its study prompt objects are for, why there is none, and how they prompt."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import pydicom

from app.graph import EmbeddingsRequest, GeneralistRequest, PromptRequest
from app.jobs.entries import SeenSeries
from app.jobs.identity import GeneralistFacts
from app.settings import Settings
from app.settings_pipeline import GeneralistSettings
from app.settings_prompt import PromptSettings
from operators.agreement_limits import AgreementLimits
from operators.errors import PromptRefused
from operators.headers import read_before_pixels
from operators.parse_errors import PARSE_ERRORS
from operators.sam.objects.reading import referenced_series, structure_count

IMAGES_NOT_HELD = "images-not-held"
"""As ``images-not-found``, it ends when the images come: `app.jobs.records.Records.reopen_prompts`."""
_UNREADABLE = "a prompt object can't be read; send it again"


@dataclass(frozen=True)
class PromptBinding:
    """A series of prompt objects, and the images that they are for."""

    images: SeenSeries | None
    problem: PromptRefused | None
    """Why there are no images."""
    wanted: str = ""
    """The Series Instance UID that the prompts refer to, where they refer to one."""

    @property
    def must_wait(self) -> bool:
        """Whether instances of the images are still coming."""
        return self.images is not None and self.images.state == "receiving"


def bind_prompts(files: Sequence[Path], study: Sequence[SeenSeries], *, most_structures: int) -> PromptBinding:
    """Return the one series of the study that all prompt objects in `files` refer to.

    An object that can't be read, or refers to none, leaves the others alone, as long as there are others.

    Its problem is ``images-not-held`` if the study has none such, ``prompt-references-several-series`` if the objects
    refer to several, ``prompt-too-many-structures`` if they ask for more than `most_structures` together,
    ``unreadable`` if the first file can't be read and no other; else as `referenced_series` of the first.
    """
    named: set[str] = set()
    structures = 0
    first: PromptRefused | None = None
    for path in files:
        try:
            dataset = _read(path)
            structures += structure_count(dataset)
            if structures <= most_structures:  # what is refused is not worth reading whole
                named.add(referenced_series(dataset))
        except PromptRefused as error:
            first = first or error
        except (OSError, MemoryError):
            raise  # of the disk or the host, and not of the object
        except Exception:  # noqa: BLE001 - a stranger's bytes: they end with a recorded refusal, whatever is wrong
            first = first or PromptRefused(_UNREADABLE, code="unreadable")
    if structures > most_structures:
        return PromptBinding(None, _too_many(structures, most_structures))
    if first is not None and not named:
        return PromptBinding(None, first)
    if len(named) > 1:
        message = f"expected prompts for one series, got objects for {len(named)}; store a series of them for each"
        return PromptBinding(None, PromptRefused(message, code="prompt-references-several-series"))
    (wanted,) = named
    for one in study:
        if one.series_instance_uid == wanted and one.is_kept:
            return PromptBinding(one, None, wanted)
    message = (
        "the images that the prompt refers to are not held in its study; send them, and the prompt is followed then"
    )
    return PromptBinding(None, PromptRefused(message, code=IMAGES_NOT_HELD), wanted)


def prompt_request(settings: Settings, prompt: PromptSettings | None) -> PromptRequest:
    """Return how a pipeline with the table `prompt` is prompted; what stands for nothing if it is not."""
    if prompt is None:
        return PromptRequest()
    return PromptRequest(prompt.window, prompt.reach, prompt.form, kept_embeddings(settings))


def kept_embeddings(settings: Settings) -> EmbeddingsRequest:
    """Return where all pipelines keep embeddings: where sessions do, under the same bound, since they are the same."""
    return EmbeddingsRequest(settings.embeddings_folder, settings.web.embedding_bytes)


def generalist_request(
    settings: GeneralistSettings | None, facts: GeneralistFacts | None, kept: EmbeddingsRequest
) -> GeneralistRequest | None:
    """What the graph is asked of a pipeline's generalist; None where it has none."""
    if settings is None or facts is None:
        return None
    limits = AgreementLimits(settings.least_dice, settings.most_distance_mm, settings.most_volume_difference_percent)
    return GeneralistRequest(
        facts.folder, facts.window, facts.box_margin_pixels, limits, facts.windows, facts.prompts, kept
    )


def own_result(pipelines: Collection[str]) -> PromptRefused:
    """Return the refusal of objects that prompted pipelines made: they would be answered for ever."""
    return PromptRefused(
        f"the object is itself a result of the prompted pipeline {', '.join(sorted(pipelines))}; the archive need not "
        "send it back",
        code="prompt-made-here",
    )


def _too_many(structures: int, most: int) -> PromptRefused:
    return PromptRefused(
        f"the prompts ask for {structures} structures, and most_structures of the pipeline's prompt allows {most}; "
        "group what is meant together (by Graphic Group ID, measurement group, region or segment), store fewer in a "
        "series, or raise it and store them anew",
        code="prompt-too-many-structures",
    )


def _read(path: Path) -> pydicom.Dataset:
    try:
        return read_before_pixels(path)
    except (OSError, *PARSE_ERRORS) as error:
        raise PromptRefused(_UNREADABLE, code="unreadable") from error
