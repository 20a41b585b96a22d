"""What jax2onnx needs around it: less in its log, and max-pooling in a form that onnxruntime runs."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def quiet() -> Iterator[None]:
    """Keeps off standard error what says nothing of the user's network.

    jax2onnx logs, with a traceback, that examples of its own need dm_pix, and onnx_ir that values without a type have
    none; both go to loggers of their own, and only these sentences are left out.
    """
    filters = {
        "jax2onnx.plugins.plugin_system": lambda record: "dm_pix" not in record.getMessage(),
        "onnx_ir.serde": lambda record: "value type for shape" not in record.getMessage(),
    }
    for name, keep in filters.items():
        logging.getLogger(name).addFilter(keep)
    try:
        yield
    finally:
        for name, keep in filters.items():
            logging.getLogger(name).removeFilter(keep)


def mend_pooling(model: Any) -> None:
    """Moves the axes of max-pooling so that onnxruntime runs it; changes the ONNX model given.

    jax2onnx 0.17 writes a window over all axes, such as `[1, 2, 2, 1]`, for an array that got two axes more before it;
    onnxruntime takes windows over one to three axes. Two axes whose window is 1 become batch and channel instead.
    """
    from onnx import helper

    graph = model.graph
    made_by = {name: node for node in graph.node for name in node.output}
    for pool in [node for node in graph.node if node.op_type == "MaxPool"]:
        given = {attribute.name: helper.get_attribute_value(attribute) for attribute in pool.attribute}
        order = pooling_order(given)
        after = [node for node in graph.node if pool.output[0] in node.input]
        if order is None or len(after) != 1 or after[0].op_type != "Squeeze":
            continue
        source = pool.input[0]
        while source in made_by and made_by[source].op_type == "Unsqueeze":
            source = made_by[source].input[0]
        rank, windows = len(order), order[2:]
        per_axis = ("kernel_shape", "strides", "dilations")
        settings: dict[str, Any] = {name: [given[name][axis] for axis in windows] for name in per_axis if name in given}
        if "pads" in given:
            settings["pads"] = [given["pads"][axis + end] for end in (0, rank) for axis in windows]
        name, result = pool.output[0], after[0].output[0]
        back = [order.index(axis) for axis in range(rank)]
        mended = [
            helper.make_node("Transpose", [source], [f"{name}_in"], perm=order),
            helper.make_node("MaxPool", [f"{name}_in"], [f"{name}_out"], **settings),
            helper.make_node("Transpose", [f"{name}_out"], [result], perm=back),
        ]
        place = list(graph.node).index(pool)
        graph.node.remove(pool)
        graph.node.remove(after[0])
        for node in reversed(mended):
            graph.node.insert(place, node)
    _drop_unused(graph)


def pooling_order(given: dict[str, Any]) -> list[int] | None:
    """Returns the order of axes in which two without a window come first; None where the node is fine as it is.

    Example:
        >>> pooling_order({"kernel_shape": [1, 2, 2, 1], "strides": [1, 2, 2, 1]})
        [0, 3, 1, 2]
        >>> pooling_order({"kernel_shape": [2, 2]}) is None
        True
    """
    kernel = given["kernel_shape"]
    rank = len(kernel)
    ones, zeros = [1] * rank, [0] * (2 * rank)
    strides, pads = given.get("strides", ones), given.get("pads", zeros)
    still = [i for i in range(rank) if kernel[i] == strides[i] == 1 and not pads[i] and not pads[i + rank]]
    if not 3 < rank <= 5 or len(still) < 2:
        return None
    first, last = still[0], still[-1]
    return [first, last, *(axis for axis in range(rank) if axis not in (first, last))]


def _drop_unused(graph: Any) -> None:
    """Removes nodes, constants and notes on values that nothing refers to any more."""
    while True:
        used = {name for node in graph.node for name in node.input} | {value.name for value in graph.output}
        unused = [node for node in graph.node if not used.intersection(node.output)]
        if not unused:
            break
        for node in unused:
            graph.node.remove(node)
    kept = [constant for constant in graph.initializer if constant.name in used]
    del graph.initializer[:]
    graph.initializer.extend(kept)
    made = used | {name for node in graph.node for name in node.output}
    known = [value for value in graph.value_info if value.name in made]
    del graph.value_info[:]
    graph.value_info.extend(known)
