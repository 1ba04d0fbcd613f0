"""The network: backbone, pyramid of semantic enhancement modules, boundary attention."""

from inspect import signature
from typing import Any, Literal

from seenet.core.errors import UsageError, nearest
from seenet.model.backbone import Backbone
from seenet.model.baselines import PEERS, PeerNetwork, check_installed, peer_output_stride
from seenet.model.depthwise import use_exact_depthwise
from seenet.model.factory import VARIANT as FACTORY
from seenet.model.factory import FactoryNetwork, unknown_parts
from seenet.model.probe import PROBES, StageProbe, levels_of, probes_of
from seenet.model.seenet import VARIANTS, SeENet
from seenet.model.segmenter import Normalization, Segmenter
from seenet.model.weights import fill_backbone, load_part, prepare_backbone

__all__ = [
    "PEERS",
    "VARIANTS",
    "Backbone",
    "PeerNetwork",
    "SeENet",
    "Segmenter",
    "StageProbe",
    "assemble",
    "create_model",
]

CHOICES: dict[str, tuple[Any, ...]] = {
    "refine_stride": (4, 8),
    "local_conv": ("full", "depthwise"),
    "rates": ("scaled", "fixed"),
    "output_stride": (8, 16, 32),
    "stride_on": ("conv2", "conv1"),
}


def create_model(
    variant: str = "seenet",
    *,
    backbone: str = "resnet50",
    num_classes: int = 21,
    in_channels: int = 3,
    weights: str | None = None,
    p_out: int | Literal["auto"] = "auto",
    refine_stride: int = 4,
    width: int = 128,
    local_conv: str = "full",
    rates: str = "scaled",
    output_stride: int = 8,
    auxiliary: bool = False,
    stride_on: str = "conv2",
    factory: str | None = None,
    probe: str | None = None,
    **unknown: Any,
) -> Segmenter:
    """Build a row of Table 1 or a peer on a timm backbone, or the user's own network.

    Args:
        variant: A name of `VARIANTS` or `PEERS`. Peers ignore p_out, refine_stride, width and
            local_conv.
        backbone: A timm name with stages at strides 4, 8, 16, 32 that can be dilated.
        num_classes: K of the class scores.
        in_channels: Channels of the input; the first convolution is adapted.
        weights: Weights of the backbone: None for random ones, "imagenet" for timm's, a
            .safetensors file or a SeENet model.
        p_out: Width of P_out; "auto" is max(128, channels of B1).
        refine_stride: Grid where P_out and B1 meet: 4 for B1's, 8 for B2's (B1 average-pooled).
        width: Channels of a branch of SeEM and SeEM-FS.
        local_conv: "full" or "depthwise" r_i x r_i convolution of SeEM-FS.
        rates: "scaled" divides the rates by (grid stride / 8), rounded up; "fixed" keeps them.
        output_stride: 8 as in the paper, 16 or 32.
        auxiliary: Add a head on B3 (`forward_features(...)["auxiliary"]`).
        stride_on: "conv1" for ResNet v1, which strides on each block's first 1x1. Weights files of
            ResNet v1 set it themselves.
        factory: `package.module:callable` that makes the network instead (`seenet.model.factory`);
            `backbone` is ignored then, and `weights` are for the `Backbone` that it keeps.
        probe: A name of `PROBES`: a probe on these stages of the variant instead of its head, with
            `weights` for the stages and for P2.

    Raises:
        UsageError: Unknown variant, option, value or backbone, with the nearest names. It is a
            ValueError.
        DataError: The weights are missing or do not fit.
    """
    if unknown:
        name = next(iter(unknown))
        names = [name for name in signature(create_model).parameters if name != "unknown"]
        raise UsageError(f"{name}: unknown option; {nearest(name, names)}")
    if probe is not None:
        _check_probe(probe, variant, factory, auxiliary)
    if factory is not None:
        users_network = FactoryNetwork(
            {
                "variant": FACTORY,
                "factory": factory,
                "num_classes": num_classes,
                "in_channels": in_channels,
                "auxiliary": auxiliary,
            }
        )
        if isinstance(users_network.backbone, Backbone):
            users_network.normalization = fill_backbone(
                users_network.backbone, weights, in_channels
            )
        elif weights is not None:
            raise UsageError(
                f"weights={weights}: the network of factory={factory} has no seenet.model.Backbone "
                "under `backbone`, so it loads its own; set model.weights=null"
            )
        return users_network
    if variant not in (*VARIANTS, *PEERS):
        raise UsageError(f"variant {variant}: unknown; {nearest(variant, (*VARIANTS, *PEERS))}")
    if variant in PEERS:
        check_installed(variant)
        output_stride = peer_output_stride(variant, output_stride)
    options: dict[str, Any] = {
        "variant": variant,
        "backbone": backbone,
        "num_classes": num_classes,
        "in_channels": in_channels,
        "p_out": p_out,
        "refine_stride": refine_stride,
        "width": width,
        "local_conv": local_conv,
        "rates": rates,
        "output_stride": output_stride,
        "auxiliary": auxiliary,
        "stride_on": stride_on,
        **({} if probe is None else {"probe": probe}),
    }
    _check_options(options)
    trunk, normalization = prepare_backbone(
        backbone,
        weights,
        output_stride=output_stride,
        in_channels=in_channels,
        stride_on=stride_on,
        levels=levels_of(probe),
    )
    # Weights of ResNet v1 have set it.
    options["stride_on"] = trunk.stride_on
    model = assemble(trunk, normalization, options)
    if isinstance(model, StageProbe) and model.P2 is not None:
        load_part(model.P2, "pyramid.P2", weights)
    return model


def assemble(
    trunk: Backbone, normalization: Normalization, options: dict[str, Any]
) -> SeENet | PeerNetwork | StageProbe:
    """Build the network on a backbone from options that `create_model` has checked."""
    kind = (
        StageProbe
        if options.get("probe")
        else PeerNetwork
        if options["variant"] in PEERS
        else SeENet
    )
    model: SeENet | PeerNetwork | StageProbe = kind(trunk, normalization, options)
    use_exact_depthwise(model)
    return model


def _check_options(options: dict[str, Any]) -> None:
    for name, allowed in CHOICES.items():
        if options[name] not in allowed:
            expected = ", ".join(map(str, allowed))
            raise UsageError(f"{name}={options[name]}: expected one of {expected}")
    for name in ("num_classes", "in_channels", "width", "p_out"):
        value = 1 if (name, options[name]) == ("p_out", "auto") else options[name]
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise UsageError(f"{name}={value!r}: expected a whole number of at least 1")


def _check_probe(probe: str, variant: str, factory: str | None, auxiliary: bool) -> None:
    if factory is not None:
        raise UsageError(f"probe={probe}: {unknown_parts(factory)}")
    if probe not in PROBES:
        raise UsageError(f"probe={probe}: unknown; {nearest(probe, PROBES)}")
    if probe not in probes_of(variant):
        raise UsageError(
            f"probe={probe}: {variant} has no enhanced B2; "
            f"expected one of {', '.join(probes_of(variant))}"
        )
    if auxiliary:
        raise UsageError(f"probe={probe}: has no auxiliary head; set loss.auxiliary=0")
