"""Makes models/three_branch.onnx, the model that the README optimizes.

It is the small three-branch classifier in training form: six blocks of conv3x3-BN + conv1x1-BN,
three of them with a BN(x) branch besides, exported as (N, 3, 32, 32) -> (N, 10) with a symbolic
batch. The exporter folds nothing, so every branch and every BatchNormalization is a node of the
file: 45 nodes, where 15 do with one Conv per block. Weights and BatchNorm statistics are random,
with a fixed seed: the example shows a fold, not a trained classifier.

Run it from the top of the repository; it needs PyTorch:

    python -m scripts.export_example
"""

import warnings
from pathlib import Path

import torch

import models

NAME = "three_branch"
OUTPUT = Path(models.__file__).parent / f"{NAME}.onnx"


def main() -> None:
    """Builds the network, exports it and says where it went."""
    batch = {0: "batch"}
    with warnings.catch_warnings():
        # The newer exporter, which it recommends, folds BatchNorms into convolutions on its own.
        warnings.filterwarnings("ignore", category=DeprecationWarning, module="torch|__main__")
        torch.onnx.export(
            models.build(NAME),
            (torch.zeros(models.ZOO[NAME].input_shape),),
            str(OUTPUT),
            dynamo=False,
            input_names=["image"],
            output_names=["logits"],
            dynamic_axes={"image": batch, "logits": batch},
            do_constant_folding=False,
            training=torch.onnx.TrainingMode.PRESERVE,
        )
    print(f"{OUTPUT.name}: {OUTPUT.stat().st_size} bytes")


if __name__ == "__main__":
    main()
