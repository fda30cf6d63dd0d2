"""Growing a random model of images."""

from __future__ import annotations

from hypothesis import strategies as st

from tests.lift.random_bodies import BodyGrower
from tests.lift.random_growing import MANY


def pooled(size: int, begin: int, end: int, span: int, stride: int, ceil: int) -> int:
    """Positions of a window; with `ceil` one more where it begins in the image."""
    free = size + begin + end - span
    if free < 0:
        return 0
    count = free // stride + 1
    goes_on = ceil and free % stride and count * stride < size + begin
    return count + bool(goes_on)


class Image(BodyGrower):
    """(N, C, *spatial) with Conv, BatchNormalization, pooling and padding."""

    kinds = (
        *("conv",) * 5,
        *("norm",) * 2,
        *("constant",) * 2,
        *("sum",) * 4,
        *("concat",) * 2,
        "negation",
        "passing",
        "opaque",
        "split",
        "gather",
        "channel_slice",
        "crop",
        "pad",
        "pool",
        "pool",
        "global_pool",
        "transposed",
        "shuffle",
    )

    def first_shape(self) -> tuple[int, ...]:
        spatial = (self.number(4, 9 if self.rank < 3 else 6) for _ in range(self.rank))
        return (self.number(1, 2), self.number(1, 4), *spatial)

    def window(self, x: str, kernel: list[int], small: bool = False) -> dict[str, list[int]] | None:
        """Attributes of a window that fits, and in "sizes" what comes out."""
        rank, size = self.rank, self.shapes[x][2:]
        strides = [self.number(1, 2) for _ in range(rank)] if self.number(0, 2) == 0 else [1] * rank
        dilations = [1] * rank
        if not small and self.number(0, 3) == 0:
            dilations = [self.number(1, 2) for _ in range(rank)]
        pads = [k // 2 * d for k, d in zip(kernel, dilations, strict=True)] * 2
        if self.number(0, 2) == 0:
            pads = [self.number(0, k - 1 if small else 2) for k in kernel * 2]
        sizes = [
            (n + p + q - (k - 1) * d - 1) // s + 1
            for n, p, q, k, d, s in zip(
                size, pads, pads[rank:], kernel, dilations, strides, strict=False
            )
        ]
        if min(sizes) < 1:
            return None
        return {"strides": strides, "dilations": dilations, "pads": pads, "sizes": sizes}

    def add_conv(self, x: str) -> None:
        inputs = self.channels(x)
        group = int(self.one_of(*(g for g in (1, 1, 2, inputs) if inputs % g == 0)))
        outputs = group * self.number(1, max(1, 6 // group))
        if self.draw(st.booleans()):
            outputs = inputs
        kernel = [int(self.one_of(1, 2, 3, 3)) for _ in range(self.rank)]
        if self.number(0, 2) == 0:
            kernel = [1] * self.rank
        window = self.window(x, kernel)
        if window is None:
            return
        sizes = window.pop("sizes")
        given: dict[str, object] = dict(window)
        if self.number(0, 4) == 0 and set(window["dilations"]) == {1}:
            del given["pads"]
            given["auto_pad"] = self.one_of("SAME_UPPER", "SAME_LOWER")
            size = self.shapes[x][2:]
            sizes = [-(-n // s) for n, s in zip(size, window["strides"], strict=True)]
        bias = self.draw(st.booleans())
        name = self.b.conv(x, inputs, outputs, kernel, bias, group, **given)
        self.shapes[name] = (self.shapes[x][0], outputs, *sizes)

    def alike(self, x: str) -> str:
        kernel = [int(self.one_of(1, 3)) for _ in range(self.rank)]
        pads = [k // 2 for k in kernel] * 2
        name = self.b.conv(x, self.channels(x), self.channels(x), kernel, pads=pads)
        self.shapes[name] = self.shapes[x]
        return name

    def add_norm(self, x: str) -> None:
        given: dict[str, object] = {"epsilon": 1e-2} if self.draw(st.booleans()) else {}
        if self.b.opset < 9:
            given["spatial"] = 1
        if self.draw(st.booleans()):
            given["momentum"] = 0.7
        name = self.b.batch_norm(x, self.channels(x), **given)
        self.shapes[name] = self.shapes[x]

    def add_crop(self, x: str) -> None:
        axes, starts, ends, steps, shape = [], [], [], [], list(self.shapes[x])
        for axis in range(2, 2 + self.rank):
            if self.draw(st.booleans()):
                axes.append(axis)
                starts.append(self.number(-3, 2))
                ends.append(int(self.one_of(MANY, MANY, -1, 99, shape[axis] - 1)))
                steps.append(self.number(1, 2) if self.b.opset >= 10 else 1)
                shape[axis] = len(range(shape[axis])[starts[-1] : ends[-1] : steps[-1]])
        if axes and min(shape) > 0:
            self.cut(x, axes, starts, ends, steps, tuple(shape))

    def add_pad(self, x: str) -> None:
        low = -1
        begins = [self.number(low, 2) for _ in range(self.rank)]
        ends = [self.number(low, 2) for _ in range(self.rank)]
        lead = [0, 0]
        if self.number(0, 3) == 0:
            begins, ends, lead = [0] * self.rank, [0] * self.rank, [1, 2]
        widths = [0, lead[0], *begins, 0, lead[1], *ends]
        size = self.shapes[x][2:]
        sizes = [n + p + q for n, p, q in zip(size, begins, ends, strict=True)]
        if min(sizes) < 1:
            return
        value = float(self.one_of(0.0, 0.0, 0.75))
        shape = (self.shapes[x][0], self.channels(x) + sum(lead), *sizes)
        if self.b.opset < 11:
            self.put("Pad", x, shape=shape, pads=widths, value=value)
        else:
            given = [self.b.constant(widths), self.b.constant(value)]
            if self.b.opset >= 18 and lead == [0, 0] and self.draw(st.booleans()):
                axes = list(range(-self.rank, 0))
                given = [self.b.constant(begins + ends), given[1], self.b.constant(axes)]
            self.put("Pad", x, *given, shape=shape)

    def add_pool(self, x: str) -> None:
        kernel = [self.number(1, 3) for _ in range(self.rank)]
        window = self.window(x, kernel, small=True)
        if window is None:
            return
        del window["sizes"]
        given: dict[str, object] = dict(window)
        ceil = self.number(0, 1) if self.b.opset >= 10 else 0
        if self.b.opset >= 19 and self.number(0, 1):
            window["dilations"] = [self.number(1, 2) for _ in range(self.rank)]
            given = dict(window)
        else:
            del given["dilations"]
        sizes = [
            pooled(n, p, q, (k - 1) * d + 1, s, ceil)
            for n, p, q, k, d, s in zip(
                self.shapes[x][2:],
                window["pads"],
                window["pads"][self.rank :],
                kernel,
                window["dilations"],
                window["strides"],
                strict=False,
            )
        ]
        if min(sizes) < 1:
            return
        if ceil:
            given["ceil_mode"] = 1
            self.is_miscounted |= self.b.opset < 22
        elif self.number(0, 3) == 0 and set(window["dilations"]) == {1}:
            del given["pads"]
            given["auto_pad"] = "VALID"
            sizes = [
                pooled(n, 0, 0, k, s, 0)
                for n, k, s in zip(self.shapes[x][2:], kernel, window["strides"], strict=True)
            ]
            if min(sizes) < 1:
                return
        shape = (*self.shapes[x][:2], *sizes)
        count = self.number(0, 1)
        self.put(
            "AveragePool", x, shape=shape, kernel_shape=kernel, count_include_pad=count, **given
        )

    def add_global_pool(self, x: str) -> None:
        shape = (*self.shapes[x][:2], *(1,) * self.rank)
        mean = self.put("GlobalAveragePool", x, shape=shape)
        if self.number(0, 1):
            op = str(self.one_of("Add", "Sub", "Mul"))
            self.put(op, x, mean, shape=self.shapes[x])

    def add_transposed(self, x: str) -> None:
        inputs, rank = self.channels(x), self.rank
        group = int(self.one_of(*(g for g in (1, 2, inputs) if inputs % g == 0)))
        per_group = self.number(1, max(1, 4 // group))
        kernel = [self.number(1, 3) for _ in range(rank)]
        strides = [self.number(1, 2) for _ in range(rank)]
        dilations = [1] * rank
        if self.number(0, 3) == 0:
            dilations = [self.number(1, 2) for _ in range(rank)]
        spans = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
        pads = [self.number(0, (span - 1) // 2) for span in spans] * 2
        more = [0] * rank
        if self.number(0, 2) == 0:
            more = [self.number(0, s - 1) for s in strides]
        size = self.shapes[x][2:]
        sizes = [
            (n - 1) * s + span - 2 * p + e
            for n, s, span, p, e in zip(size, strides, spans, pads, more, strict=False)
        ]
        if min(sizes) < 1 or max(sizes) > 20:
            return
        given: dict[str, object] = {"strides": strides, "pads": pads, "group": group}
        if set(dilations) != {1}:
            given["dilations"] = dilations
        if any(more):
            given["output_padding"] = more
        extra = [self.b.random(per_group * group)] if self.draw(st.booleans()) else []
        weight = self.b.random(inputs, per_group, *kernel)
        shape = (self.shapes[x][0], per_group * group, *sizes)
        self.put("ConvTranspose", x, weight, *extra, shape=shape, **given)

    def add_shuffle(self, x: str) -> None:
        total, rank = self.channels(x), self.rank
        factors = [g for g in (2, 3) if total % g == 0]
        if not factors or self.sizes:
            return
        group = int(self.one_of(*factors))
        batch, _, *size = self.shapes[x]
        wide = self.b.op("Reshape", x, self.b.constant([batch, group, total // group, *size]))
        turned = self.b.op("Transpose", wide, perm=[0, 2, 1, *range(3, 3 + rank)])
        last = self.b.constant([batch, total, *size])
        self.put("Reshape", turned, last, shape=self.shapes[x])

    def add_quantized_layer(self, x: str) -> None:
        if not self.setting.quantizes:
            return
        inputs, outputs = self.channels(x), self.number(1, 4)
        kernel = [int(self.one_of(1, 3)) for _ in range(self.rank)]
        weight = self.dequantized(outputs, inputs, *kernel)
        shape = self.with_channels(x, outputs)
        self.put("Conv", x, weight, shape=shape, pads=[k // 2 for k in kernel] * 2)
