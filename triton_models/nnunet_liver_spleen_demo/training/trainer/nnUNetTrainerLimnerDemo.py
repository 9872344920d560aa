"""The nnU-Net trainer of the demonstration model; nnU-Net finds it through ``nnUNet_extTrainer``."""

from typing import Any

import torch
from batchgeneratorsv2.transforms.intensity.brightness import MultiplicativeBrightnessTransform
from batchgeneratorsv2.transforms.intensity.contrast import BGContrast, ContrastTransform
from batchgeneratorsv2.transforms.intensity.gamma import GammaTransform
from batchgeneratorsv2.transforms.intensity.gaussian_noise import GaussianNoiseTransform
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
from batchgeneratorsv2.transforms.utils.random import RandomTransform
from nnunetv2.training.lr_scheduler.polylr import PolyLRScheduler
from nnunetv2.training.nnUNetTrainer.variants.data_augmentation.nnUNetTrainerNoDA import nnUNetTrainerNoDA

CPU = torch.device("cpu")


class nnUNetTrainerLimnerDemo(nnUNetTrainerNoDA):  # type: ignore[misc]  # noqa: N801 - nnU-Net's way of naming
    """AdamW, a short schedule, intensity augmentation only.

    Shapes are varied beforehand in the data set itself, and nothing is ever mirrored, so the checkpoint
    carries ``inference_allowed_mirroring_axes`` None.
    """

    def __init__(
        self,
        plans: dict[str, Any],
        configuration: str,
        fold: int,
        dataset_json: dict[str, Any],
        device: torch.device = CPU,
    ) -> None:
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.num_epochs = 23
        self.num_iterations_per_epoch = 100
        self.num_val_iterations_per_epoch = 4
        self.initial_lr = 2e-3
        self.weight_decay = 1e-3
        self.save_every = 5

    def configure_optimizers(self) -> tuple[torch.optim.Optimizer, PolyLRScheduler]:
        """AdamW converges in the few thousand steps that a CPU can pay for."""
        optimizer = torch.optim.AdamW(self.network.parameters(), self.initial_lr, weight_decay=self.weight_decay)
        return optimizer, PolyLRScheduler(optimizer, self.initial_lr, self.num_epochs)

    @staticmethod
    def get_training_transforms(*args: Any, **kwargs: Any) -> ComposeTransforms:
        """Noise, brightness, contrast and gamma, then what nnU-Net does without augmentation."""
        contrast = BGContrast((0.75, 1.25))
        intensity = [
            RandomTransform(GaussianNoiseTransform((0, 0.1), 1, True), apply_probability=0.15),
            RandomTransform(MultiplicativeBrightnessTransform(contrast, True, 1), apply_probability=0.15),
            RandomTransform(ContrastTransform(contrast, True, True, 1), apply_probability=0.2),
            RandomTransform(GammaTransform(BGContrast((0.7, 1.5)), 0, True, 1, 1), apply_probability=0.2),
        ]
        plain = nnUNetTrainerNoDA.get_training_transforms(*args, **kwargs)
        return ComposeTransforms([*intensity, plain])
