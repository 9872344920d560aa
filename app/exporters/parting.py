"""Where two computations of one network first part: the kind and the place of the layer.

Runs in the exporter environment. A refusal that says "off by 0.3" sends people searching; one that says "first at the
InstanceNormalization of encoder.stages.0" tells them what to mend.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from app.exporters.onnx_graphs import LAYER_KINDS, Layer, layer_outputs, layers, opened, write_graph
from app.exporters.parity import EXACT_ERROR, Array, extent_of

if TYPE_CHECKING:
    import torch

LAYERS_AT_ONCE = 8
"""So many outputs are held at a time: whole volumes of features, twice."""
DERIVED_ERROR = 0.02
"""What half precision may cost a layer."""
_MOST_CHANNELS = 4
"""Of so many channels every order is tried."""
_KINDS = {
    "Conv2d": "Conv",
    "Conv3d": "Conv",
    "ConvTranspose2d": "ConvTranspose",
    "ConvTranspose3d": "ConvTranspose",
    "InstanceNorm2d": "InstanceNormalization",
    "InstanceNorm3d": "InstanceNormalization",
    "LeakyReLU": "LeakyRelu",
    "AvgPool2d": "AveragePool",
    "AvgPool3d": "AveragePool",
}
"""torch's module to ONNX's operator."""

Values = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Parting:
    """The first layer whose output differs; if none does by itself, the one that differs most."""

    kind: str
    """The ONNX operator."""
    place: str
    """The module's path in the network."""
    error: float
    """Largest error as a share of the layer's range; infinite if a value is not finite."""
    stands_out: bool = True
    """Whether its error alone is beyond what is to be expected of a layer."""

    def __str__(self) -> str:
        how = "a value is not finite" if np.isinf(self.error) else f"off by {self.error:.2g} of its range"
        if not self.stands_out:
            return f"no layer stands out, and the largest error is that of {self.kind}, {self.place} ({how})"
        return f"they first part at {self.kind}, {self.place} ({how})"


def part_from_torch(network: torch.nn.Module, graph: Path, batch: Array) -> Parting | None:
    """Return where `graph` first parts from `network`, of which it was made; None if no layers can be compared."""
    modules = [(name, module) for name, module in network.named_modules() if type(module).__name__ in _KINDS]
    paired = list(_pair(_call_order(network, modules, batch), layers(graph)))
    places = {layer.output: place for place, layer in paired}

    def torch_values(names: Sequence[str]) -> Values:
        wanted = {places[name]: name for name in names}
        return {wanted[place]: value for place, value in _torch_outputs(network, list(wanted), batch).items()}

    return _first(
        [(place, layer) for place, layer in paired],
        torch_values,
        lambda names: layer_outputs(graph, names, batch),
        EXACT_ERROR,
    )


def part_from_graph(reference: Path, derived: Path, batch: Array) -> Parting | None:
    """Return where `derived` first parts from the graph it was made from; None if no layers can be compared."""
    return _first(
        [(place_of(layer.name), layer) for layer in layers(reference)],
        lambda names: layer_outputs(reference, names, batch),
        lambda names: layer_outputs(derived, names, batch, as_written=True),
        DERIVED_ERROR,
    )


def open_layers(reference: Path, served: Path, image: Path, start: int, target: Path) -> dict[str, Any]:
    """Write `served` with the outputs of some layers open, and what `reference` computes there for an image.

    Parameters
    ----------
    image
        NumPy's file of (channel, …patch).
    start
        The first of the reference's layers to open.
    target
        The folder for ``model.onnx`` and the values, one file a layer; made.
    """
    everything = layers(reference)
    group = everything[start : start + LAYERS_AT_ONCE]
    values = layer_outputs(reference, [layer.output for layer in group], np.load(image)[None])
    target.mkdir(parents=True)
    model, shown = opened(served, [layer.output for layer in group])
    write_graph(model, target / "model.onnx")
    files = {name: f"{number}.npy" for number, name in enumerate(values)}
    for name, file in files.items():
        np.save(target / file, values[name])
    described = [
        {
            "kind": layer.kind,
            "place": place_of(layer.name),
            "output": layer.output,
            "shape": values[layer.output].shape[1:],
        }
        for layer in group
        if layer.output in shown
    ]
    return {"count": len(everything), "layers": described, "opened": len(group), "files": files}


def find_swap(run: Callable[[Array], Array], expected: Array, volume: Array, image_channels: int) -> str | None:
    """Say which order of the inputs gives what was expected, if another than theirs does.

    Parameters
    ----------
    run
        From a batch (1, channel, …) to logits (1, class, …).
    expected
        (class, …).
    volume
        (channel, …).
    image_channels
        How many of the channels are images; the others are labels of a previous stage.
    """
    if not 1 < image_channels <= _MOST_CHANNELS:
        return None
    rest = range(image_channels, len(volume))
    most = EXACT_ERROR * extent_of(expected)
    for order in itertools.islice(itertools.permutations(range(image_channels)), 1, None):
        found = run(np.ascontiguousarray(volume[[*order, *rest]])[None])[0]
        if np.abs(found - expected).max() <= most:
            return f"the inputs look swapped: in the order {', '.join(map(str, order))} of its channels both agree"
    return None


def _first(
    paired: Sequence[tuple[str, Layer]],
    expected: Callable[[Sequence[str]], Values],
    found: Callable[[Sequence[str]], Values],
    tolerance: float,
) -> Parting | None:
    largest: Parting | None = None
    for start in range(0, len(paired), LAYERS_AT_ONCE):
        group = paired[start : start + LAYERS_AT_ONCE]
        names = [layer.output for _, layer in group]
        parting = first_parting(group, expected(names), found(names), tolerance)
        if parting is not None and parting.stands_out:
            return parting
        largest = larger(largest, parting)
    return largest


def first_parting(
    group: Sequence[tuple[str, Layer]], expected: Values, found: Values, tolerance: float = DERIVED_ERROR
) -> Parting | None:
    """Return the first of some layers, each with its place, whose output strays beyond `tolerance`.

    Returns
    -------
    Parting
        The one that strays most if none does so far; None if the values have none of these layers.
    """
    largest: Parting | None = None
    for place, layer in group:
        if layer.output not in expected or layer.output not in found:
            continue
        error = _error(expected[layer.output], found[layer.output])
        if error > tolerance:
            return Parting(layer.kind, place, error)
        largest = larger(largest, Parting(layer.kind, place, error, stands_out=False))
    return largest


def larger(one: Parting | None, other: Parting | None) -> Parting | None:
    """Return the one with the larger error, the first if both are alike."""
    return max((part for part in (one, other) if part is not None), key=lambda part: part.error, default=None)


def _error(expected: NDArray[Any], found: NDArray[Any]) -> float:
    if expected.shape != found.shape or not np.isfinite(found).all():
        return float("inf")
    return float(np.abs(found.astype(np.float64) - expected).max()) / extent_of(expected)


def _call_order(
    network: torch.nn.Module, modules: Sequence[tuple[str, torch.nn.Module]], batch: Array
) -> list[tuple[str, str]]:
    """The paths and kinds of the modules, in the order in which they are called."""
    order: list[tuple[str, str]] = []
    hooks = [
        module.register_forward_hook(
            lambda module, _inputs, _output, name=name: order.append((name, _KINDS[type(module).__name__]))
        )
        for name, module in modules
    ]
    _forward(network, batch, hooks)
    return order


def _torch_outputs(network: torch.nn.Module, names: Sequence[str], batch: Array) -> dict[str, NDArray[Any]]:
    outputs: dict[str, NDArray[Any]] = {}

    def keep(name: str, output: torch.Tensor) -> None:
        # copied, because the activation that follows works in place
        outputs[name] = output.detach().numpy().copy()

    modules = dict(network.named_modules())
    hooks = [
        modules[name].register_forward_hook(lambda _module, _inputs, output, name=name: keep(name, output))
        for name in names
    ]
    _forward(network, batch, hooks)
    return outputs


def _forward(network: torch.nn.Module, batch: Array, hooks: Sequence[Any]) -> None:
    import torch

    try:
        with torch.inference_mode():
            network(torch.from_numpy(batch))
    finally:
        for hook in hooks:
            hook.remove()


def _pair(called: Sequence[tuple[str, str]], graph_layers: Sequence[Layer]) -> Iterator[tuple[str, Layer]]:
    """Each layer of the graph with the path of its module, in the graph's order.

    Both lists are in the order of execution, so the k-th of a kind belongs to the k-th of that kind. A kind of which
    there are not as many on both sides can't be paired and is left out.
    """
    paths = {kind: [path for path, one in called if one == kind] for kind in LAYER_KINDS}
    counts = {kind: sum(layer.kind == kind for layer in graph_layers) for kind in LAYER_KINDS}
    remaining = {kind: iter(paths[kind]) for kind in LAYER_KINDS if len(paths[kind]) == counts[kind]}
    for layer in graph_layers:
        if layer.kind in remaining:
            yield next(remaining[layer.kind]), layer


def place_of(node: str) -> str:
    """The module's path, from the name that the exporter gave its node: ``/encoder/stages.0/…/conv/Conv``."""
    *scopes, _ = [part for part in node.split("/") if part] or [""]
    return ".".join(scopes) or node
