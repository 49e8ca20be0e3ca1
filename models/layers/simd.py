"""Vectors of float32 as values of numba's compiled functions, so that a kernel says what stands in a register and what in memory.

A vector is as wide as a register of the processor (16 numbers with AVX-512, else 8). Arrays are flat and contiguous; an index
counts numbers, not vectors, and nothing checks it.
"""

from __future__ import annotations

import operator
from typing import TypeAlias

from llvmlite import ir
from numba import types
from numba.extending import models, overload, register_model

from compiled.vectors import Value, between, features, operation

V = 16 if "+avx512f" in features().split(",") else 8
FLOATS, INTEGERS = ir.VectorType(ir.FloatType(), V), ir.VectorType(ir.IntType(32), V)
# A product and a sum may be one instruction where the processor has it.
FUSED = ("contract",)
Register: TypeAlias = Value
"""A vector, as a compiled function sees it."""


class Vector(types.Type):
    def __init__(self) -> None:
        super().__init__(name=f"float32 x {V}")


vector = Vector()


@register_model(Vector)
class VectorModel(models.PrimitiveModel):
    def __init__(self, manager: object, type_: Vector) -> None:
        super().__init__(manager, type_, FLOATS)


def integers(*values: int) -> ir.Constant:
    return ir.Constant(INTEGERS, list(values) if len(values) > 1 else [values[0]] * V)


def place(builder: ir.IRBuilder, data: ir.Value, index: ir.Value) -> ir.Value:
    return builder.bitcast(builder.gep(data, [index]), FLOATS.as_pointer())


@operation(vector, None, types.intp)
def load(builder: ir.IRBuilder, data: ir.Value, index: ir.Value) -> ir.Value:
    return builder.load(place(builder, data, index), align=4)


@operation(types.void, None, types.intp, vector)
def store(builder: ir.IRBuilder, data: ir.Value, index: ir.Value, value: ir.Value) -> ir.Value:
    return builder.store(value, place(builder, data, index), align=4)


@operation(vector, types.float32)
def spread(builder: ir.IRBuilder, number: ir.Value) -> ir.Value:
    """The number in every place."""
    nothing = ir.Constant(FLOATS, ir.Undefined)
    return builder.shuffle_vector(builder.insert_element(nothing, number, ir.IntType(32)(0)), nothing, integers(0))


@operation(vector, vector, vector)
def plus(builder: ir.IRBuilder, a: ir.Value, b: ir.Value) -> ir.Value:
    return builder.fadd(a, b, flags=FUSED)


@operation(vector, vector, vector)
def minus(builder: ir.IRBuilder, a: ir.Value, b: ir.Value) -> ir.Value:
    return builder.fsub(a, b, flags=FUSED)


@operation(vector, vector, vector)
def times(builder: ir.IRBuilder, a: ir.Value, b: ir.Value) -> ir.Value:
    return builder.fmul(a, b, flags=FUSED)


@operation(vector, vector, vector)
def at_least(builder: ir.IRBuilder, a: ir.Value, low: ir.Value) -> ir.Value:
    """The larger of the two; NaN where a is."""
    return builder.select(builder.fcmp_ordered("<", a, low), low, a)


@operation(vector, vector, vector)
def at_most(builder: ir.IRBuilder, a: ir.Value, high: ir.Value) -> ir.Value:
    """The smaller of the two; NaN where a is."""
    return builder.select(builder.fcmp_ordered(">", a, high), high, a)


@operation(vector, vector)
def power(builder: ir.IRBuilder, a: ir.Value) -> ir.Value:
    """2^i of the integer i, -127 to 128, in the lowest bits of a (0 and infinity at the ends)."""
    exponent = builder.add(builder.bitcast(a, INTEGERS), integers(127))
    return builder.bitcast(builder.shl(exponent, integers(23)), FLOATS)


@operation(vector, None)
def sums(builder: ir.IRBuilder, data: ir.Value) -> ir.Value:
    """One vector of the sums of V vectors, which lie one after another: neighbours are added in log2 V rounds."""
    rows = [builder.load(place(builder, data, ir.IntType(64)(i * V)), align=4) for i in range(V)]
    even, odd = integers(*range(0, 2 * V, 2)), integers(*range(1, 2 * V, 2))
    while len(rows) > 1:
        pairs = zip(rows[::2], rows[1::2], strict=True)
        rows = [builder.fadd(builder.shuffle_vector(a, b, even), builder.shuffle_vector(a, b, odd)) for a, b in pairs]
    return rows[0]


overload(operator.add)(between(Vector, plus))
overload(operator.sub)(between(Vector, minus))
overload(operator.mul)(between(Vector, times))
