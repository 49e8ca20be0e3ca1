"""Vectors of float32 as values of numba's compiled functions, so that a kernel says what stands in a register and what in memory.

A vector is as wide as a register of the processor (16 numbers with AVX-512, else 8). Arrays are flat and contiguous; an index
counts numbers, not vectors, and nothing checks it.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Protocol

from llvmlite import binding, ir
from numba import types
from numba.core import config
from numba.core.base import BaseContext
from numba.core.typing import Signature
from numba.extending import intrinsic, models, overload, register_model


def features() -> str:
    """Of the processor that numba compiles for: this one, or what NUMBA_CPU_FEATURES says."""
    said: str | None = vars(config)["CPU_FEATURES"]
    return binding.get_host_cpu_features().flatten() if said is None else said


V = 16 if "+avx512f" in features().split(",") else 8
FLOATS, INTEGERS = ir.VectorType(ir.FloatType(), V), ir.VectorType(ir.IntType(32), V)
# A product and a sum may be one instruction where the processor has it.
FUSED = ("contract",)


class Register(Protocol):
    """A vector, as a compiled function sees it."""

    def __add__(self, other: Register) -> Register: ...
    def __sub__(self, other: Register) -> Register: ...
    def __mul__(self, other: Register) -> Register: ...


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


def operation(
    result: types.Type, *arguments: types.Type | None
) -> Callable[[Callable[..., ir.Value]], Callable[..., Register]]:
    """Decorator: a function of an IR builder becomes one that compiled functions call. None: an argument of any type (an array)."""

    def make(build: Callable[..., ir.Value]) -> Callable[..., Register]:
        def typed(*given: types.Type) -> tuple[Signature, Callable[..., ir.Value]]:
            taken = [g if a is None else a for a, g in zip(arguments, given, strict=True)]

            def generate(
                context: BaseContext, builder: ir.IRBuilder, signature: Signature, args: Sequence[ir.Value]
            ) -> ir.Value:
                # Of an array only its data is wanted.
                values = [
                    context.make_array(t)(context, builder, a).data if isinstance(t, types.Array) else a
                    for t, a in zip(signature.args, args, strict=True)
                ]
                found = build(builder, *values)
                return context.get_dummy_value() if result is types.void else found

            return result(*taken), generate

        # numba reads how many arguments there are from the function itself.
        by_number: dict[int, Callable[..., object]] = {
            1: lambda context, a: typed(a),
            2: lambda context, a, b: typed(a, b),
            3: lambda context, a, b, c: typed(a, b, c),
        }
        made: Callable[..., Register] = intrinsic(by_number[len(arguments)])
        return made

    return make


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


def between(function: Callable[..., Register]) -> Callable[..., Callable[..., Register] | None]:
    """What numba asks for an operator: its implementation for two vectors, none for anything else."""
    # Lambdas, because numba compares both lists of arguments, annotations included.
    return lambda a, b: (lambda a, b: function(a, b)) if isinstance(a, Vector) and isinstance(b, Vector) else None


overload(operator.add)(between(plus))
overload(operator.sub)(between(minus))
overload(operator.mul)(between(times))
