"""Operators that onnx's reference implementation lacks or has wrong, written again."""

from __future__ import annotations

import itertools

import numpy as np
from onnx.reference.op_run import OpRun
from onnx.reference.ops import op_loop


class ConvTranspose(OpRun):
    """Every input pixel adds its scaled kernel to the output; groups, which onnx's own lacks."""

    op_domain = ""

    def _run(self, x, weight, bias=None, **attributes):  # type: ignore[no-untyped-def]
        rank, group = weight.ndim - 2, attributes.get("group") or 1
        strides = attributes.get("strides") or [1] * rank
        dilations = attributes.get("dilations") or [1] * rank
        extra = attributes.get("output_padding") or [0] * rank
        pads = attributes.get("pads") or [0] * (2 * rank)
        auto = attributes.get("auto_pad") or "NOTSET"
        full = [
            (n - 1) * s + (k - 1) * d + 1
            for n, s, k, d in zip(x.shape[2:], strides, weight.shape[2:], dilations, strict=True)
        ]
        wanted = attributes.get("output_shape") or None
        if wanted is None and auto.startswith("SAME"):
            wanted = [n * s for n, s in zip(x.shape[2:], strides, strict=True)]
        if wanted is not None:
            total = [f + e - m for f, e, m in zip(full, extra, wanted, strict=True)]
            small = [t // 2 for t in total]
            large = [t - t // 2 for t in total]
            pads = large + small if auto != "SAME_UPPER" else small + large
        sizes = [f + e for f, e in zip(full, extra, strict=True)]
        y = np.zeros((x.shape[0], group, weight.shape[1], *sizes), dtype=x.dtype)
        by_group = x.reshape(x.shape[0], group, -1, *x.shape[2:])
        taps = weight.reshape(group, -1, *weight.shape[1:])
        for tap in itertools.product(*(range(k) for k in weight.shape[2:])):
            at = tuple(
                slice(t * d, t * d + (n - 1) * s + 1, s)
                for t, d, n, s in zip(tap, dilations, x.shape[2:], strides, strict=True)
            )
            matrix = taps[(slice(None), slice(None), slice(None), *tap)]
            y[(slice(None), slice(None), slice(None), *at)] += np.einsum(
                "ngi...,gio->ngo...", by_group, matrix
            )
        y = y.reshape(x.shape[0], -1, *sizes)
        ends = [m - q for m, q in zip(sizes, pads[rank:], strict=True)]
        y = y[(slice(None), slice(None), *(slice(p, e) for p, e in zip(pads, ends, strict=False)))]
        if bias is not None:
            y = y + bias.reshape(-1, *(1,) * rank)
        return (y,)


class BatchNormalization(OpRun):
    """All opsets alike; onnx's own is wrong before opset 14."""

    op_domain = ""

    def _run(self, x, scale, shift, mean, var, **attributes):  # type: ignore[no-untyped-def]
        epsilon = attributes.get("epsilon")
        ones = (-1, *(1,) * (x.ndim - 2))
        new = (mean, var)
        if attributes.get("training_mode"):
            axes = (0, *range(2, x.ndim))
            rest = attributes["momentum"]
            new = tuple(
                old * rest + now * (1 - rest)
                for old, now in ((mean, x.mean(axes)), (var, x.var(axes)))
            )
            mean, var = x.mean(axes), x.var(axes)
        factor = scale / np.sqrt(var + (1e-5 if epsilon is None else epsilon))
        y = x * factor.reshape(ones) + (shift - mean * factor).reshape(ones)
        return (y, *new) if attributes.get("training_mode") else (y,)


class AveragePool(OpRun):
    """From the definition, position by position; onnx's own is wrong with ceil_mode."""

    op_domain = ""

    def _run(self, x, **attributes):  # type: ignore[no-untyped-def]
        kernel = attributes["kernel_shape"]
        rank, size = len(kernel), x.shape[2:]
        strides = attributes.get("strides") or [1] * rank
        dilations = attributes.get("dilations") or [1] * rank
        pads = attributes.get("pads") or [0] * (2 * rank)
        spans = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
        auto = attributes.get("auto_pad") or "NOTSET"
        if auto.startswith("SAME"):
            total = [
                max((-(-n // s) - 1) * s + e - n, 0)
                for n, s, e in zip(size, strides, spans, strict=True)
            ]
            small, large = [t // 2 for t in total], [t - t // 2 for t in total]
            pads = small + large if auto == "SAME_UPPER" else large + small
        positions = []
        for n, p, q, e, s in zip(size, pads, pads[rank:], spans, strides, strict=False):
            last = n + q - e
            if attributes.get("ceil_mode"):
                last = min(last + s - 1, n - 1)
            positions.append(range(-p, last + 1, s))
        y = np.zeros((*x.shape[:2], *map(len, positions)), x.dtype)
        counts_pads = attributes.get("count_include_pad")
        for at in np.ndindex(*y.shape[2:]):
            taps = [
                [i for i in range(o[a], o[a] + e, d) if i < n + q]
                for o, a, e, d, n, q in zip(
                    positions, at, spans, dilations, size, pads[rank:], strict=True
                )
            ]
            real = [[i for i in t if 0 <= i < n] for t, n in zip(taps, size, strict=True)]
            count = np.prod([len(t) for t in (taps if counts_pads else real)])
            window = x[np.ix_(range(x.shape[0]), range(x.shape[1]), *real)]
            y[(slice(None), slice(None), *at)] = window.sum(tuple(range(2, x.ndim))) / count
        return (y,)


class Loop(op_loop.Loop):
    """With scan outputs stacked along a new axis; onnx's own joins them along the first."""

    op_domain = ""

    def _run(self, rounds, goes_on, *state, context=None, attributes=None, bindings=None, **_):  # type: ignore[no-untyped-def]
        count, names = 0, self.body.input_names
        scans: list[list[np.ndarray]] = [[] for _ in range(self.K)]
        goes_on = True if goes_on is None else goes_on
        while goes_on and (rounds is None or count < rounds):
            given = dict(zip(names, (np.asarray(count), np.asarray(goes_on), *state), strict=True))
            made = self._run_body(
                {**(context or {}), **given}, attributes=attributes, bindings=bindings
            )
            goes_on, state, count = made[0], made[1 : 1 + self.N], count + 1
            for scan, value in zip(scans, made[1 + self.N :], strict=True):
                scan.append(value)
        return (*state, *map(np.stack, scans))


class Pad(OpRun):
    """Constant padding with negative widths too, which onnx's own lacks."""

    op_domain = ""

    def _run(self, x, widths=None, value=None, axes=None, **attributes):  # type: ignore[no-untyped-def]
        widths = attributes.get("pads") if widths is None else widths.tolist()
        value = attributes.get("value", 0.0) if value is None else value
        axes = list(range(x.ndim)) if axes is None else [int(a) % x.ndim for a in axes]
        kept, added = [slice(None)] * x.ndim, [(0, 0)] * x.ndim
        for axis, begin, end in zip(axes, widths, widths[len(axes) :], strict=False):
            kept[axis] = slice(max(-begin, 0), x.shape[axis] - max(-end, 0))
            added[axis] = (max(begin, 0), max(end, 0))
        mode = attributes.get("mode") or "constant"
        given = {"constant_values": np.ravel(value)[0]} if mode == "constant" else {}
        return (np.pad(x[tuple(kept)], added, mode=mode, **given),)


OWN = [AveragePool, BatchNormalization, ConvTranspose, Loop, Pad]
