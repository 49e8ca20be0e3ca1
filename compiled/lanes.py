"""Vectors of unsigned 64-bit integers as values of numba's compiled functions: many places of some data, at which the same is done.

A value is several registers of the processor side by side (AVX-512), so that one waits while the others go on. Nothing checks an index.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import TypeAlias

from llvmlite import ir
from numba import types
from numba.core import config
from numba.extending import models, overload, register_model

from compiled.vectors import Operation, Value, between, called, operation
from compiled.wide import LANES, REGISTERS, WIDE, is_wide

if not is_wide() or not vars(config)["ENABLE_AVX"]:  # LLVM would end the process
    raise ImportError("needs a processor with AVX-512 and VBMI2")
_I8, _I32, _I64 = ir.IntType(8), ir.IntType(32), ir.IntType(64)
_LONGS, _BITS = ir.VectorType(_I64, WIDE), ir.VectorType(ir.IntType(1), WIDE)


class LanesType(types.Type):
    def __init__(self) -> None:
        super().__init__(name=f"uint64 x {LANES}")


class WhichType(types.Type):
    def __init__(self) -> None:
        super().__init__(name=f"bool x {LANES}")


lanes, which = LanesType(), WhichType()
Lanes: TypeAlias = Value
"""As a compiled function sees it: an integer a lane."""
_MODELS = {lanes: ir.LiteralStructType([_LONGS] * REGISTERS), which: ir.LiteralStructType([_BITS] * REGISTERS)}


@register_model(LanesType)
@register_model(WhichType)
class RegistersModel(models.PrimitiveModel):
    def __init__(self, manager: object, type_: types.Type) -> None:
        super().__init__(manager, type_, _MODELS[type_])


def _registers(builder: ir.IRBuilder, value: ir.Value) -> list[ir.Value]:
    return [builder.extract_value(value, i) for i in range(REGISTERS)]


def _together(builder: ir.IRBuilder, kind: types.Type, registers: list[ir.Value]) -> ir.Value:
    value = ir.Constant(_MODELS[kind], ir.Undefined)
    for i, register in enumerate(registers):
        value = builder.insert_value(value, register, i)
    return value


def _each(result: types.Type, *arguments: types.Type | None) -> Callable[[Callable[..., ir.Value]], Operation]:
    """As `operation`, of a function that is told what to do with one register of each argument."""

    def make(build: Callable[..., ir.Value]) -> Operation:
        def all_of_them(builder: ir.IRBuilder, *args: ir.Value) -> ir.Value:
            split = [
                _registers(builder, a) if kind in _MODELS else [a] * REGISTERS
                for kind, a in zip(arguments, args, strict=True)
            ]
            return _together(builder, result, [build(builder, *of) for of in zip(*split, strict=True)])

        return operation(result, *arguments)(all_of_them)

    return make


def _same(builder: ir.IRBuilder, number: ir.Value) -> ir.Value:
    nothing, first = ir.Constant(_LONGS, ir.Undefined), ir.Constant(ir.VectorType(_I32, WIDE), [0] * WIDE)
    return builder.shuffle_vector(builder.insert_element(nothing, number, _I32(0)), nothing, first)


def _constant(number: int) -> ir.Constant:
    return ir.Constant(_LONGS, [number] * WIDE)


def _read(builder: ir.IRBuilder, data: ir.Value, at: ir.Value, size: int) -> ir.Value:
    """Eight bytes from place `at` on of an array of numbers of so many bytes."""
    everywhere, start = ir.Constant(_BITS, [1] * WIDE), builder.bitcast(data, _I8.as_pointer())
    gather = "llvm.x86.avx512.mask.gather.qpq.512"
    return called(builder, gather, _constant(0), start, at, everywhere, _I32(size), result=_LONGS)


@operation(lanes, types.uint64)
def every(builder: ir.IRBuilder, number: ir.Value) -> ir.Value:
    """The number in every lane."""
    return _together(builder, lanes, [_same(builder, number)] * REGISTERS)


@operation(lanes, None)
def load(builder: ir.IRBuilder, data: ir.Value) -> ir.Value:
    """The first `LANES` of an array of uint64."""
    at = builder.bitcast(data, _LONGS.as_pointer())
    return _together(builder, lanes, [builder.load(builder.gep(at, [_I32(i)]), align=8) for i in range(REGISTERS)])


@operation(lanes, None)
def table(builder: ir.IRBuilder, data: ir.Value) -> ir.Value:
    """Eight numbers of uint64, of which `chosen` chooses."""
    return _together(builder, lanes, [builder.load(builder.bitcast(data, _LONGS.as_pointer()), align=8)] * REGISTERS)


@operation(types.void, None, lanes)
def store(builder: ir.IRBuilder, data: ir.Value, value: ir.Value) -> None:
    at = builder.bitcast(data, _LONGS.as_pointer())
    for i, register in enumerate(_registers(builder, value)):
        builder.store(register, builder.gep(at, [_I32(i)]), align=8)


@operation(types.uint64, which)
def numbers(builder: ir.IRBuilder, value: ir.Value) -> ir.Value:
    """Bit i is set where lane i is one of them."""
    found = _I64(0)
    for i, register in enumerate(_registers(builder, value)):
        bits = builder.zext(builder.bitcast(register, _I8), _I64)
        found = builder.or_(found, builder.shl(bits, _I64(WIDE * i)))
    return found


@_each(lanes, None, lanes)
def windows(builder: ir.IRBuilder, data: ir.Value, at: ir.Value) -> ir.Value:
    """Eight bytes from each bit `at` on, the first byte highest, less the bits before `at`; 57 bits are sure to be of the data."""
    read = _read(builder, data, builder.lshr(at, _constant(3)), 1)
    swapped = called(builder, "llvm.bswap.v8i64", read, result=_LONGS)
    return builder.shl(swapped, builder.and_(at, _constant(7)))


@_each(lanes, None, lanes)
def entries(builder: ir.IRBuilder, data: ir.Value, at: ir.Value) -> ir.Value:
    """Number `at` of an array of uint32 in the lower half, the one behind it in the upper."""
    return _read(builder, data, at, 4)


@_each(lanes, lanes, lanes)
def plus(builder: ir.IRBuilder, a: ir.Value, b: ir.Value) -> ir.Value:
    return builder.add(a, b)


@_each(lanes, lanes, lanes)
def common(builder: ir.IRBuilder, a: ir.Value, b: ir.Value) -> ir.Value:
    return builder.and_(a, b)


@_each(lanes, lanes, lanes)
def joined(builder: ir.IRBuilder, a: ir.Value, b: ir.Value) -> ir.Value:
    return builder.or_(a, b)


@_each(lanes, lanes, lanes)
def left(builder: ir.IRBuilder, a: ir.Value, by: ir.Value) -> ir.Value:
    """By the lowest six bits of `by`."""
    return called(builder, "llvm.fshl.v8i64", a, _constant(0), by, result=_LONGS)


@_each(lanes, lanes, lanes)
def right(builder: ir.IRBuilder, a: ir.Value, by: ir.Value) -> ir.Value:
    return builder.lshr(a, by)


@_each(lanes, lanes, lanes, lanes)
def followed(builder: ir.IRBuilder, high: ir.Value, low: ir.Value, by: ir.Value) -> ir.Value:
    """`high`, shifted to the left, with the highest bits of `low` behind it."""
    return called(builder, "llvm.fshl.v8i64", high, low, by, result=_LONGS)


@_each(lanes, lanes, lanes, lanes)
def chosen(builder: ir.IRBuilder, first: ir.Value, second: ir.Value, by: ir.Value) -> ir.Value:
    """One of 16 numbers, those of two tables, by the lowest four bits."""
    return called(builder, "llvm.x86.avx512.vpermi2var.q.512", first, by, second, result=_LONGS)


@_each(lanes, which, lanes, lanes)
def where(builder: ir.IRBuilder, those: ir.Value, a: ir.Value, b: ir.Value) -> ir.Value:
    return builder.select(those, a, b)


@_each(which, lanes, lanes)
def has(builder: ir.IRBuilder, a: ir.Value, bits: ir.Value) -> ir.Value:
    """Those with any of the bits."""
    return builder.icmp_unsigned("!=", builder.and_(a, bits), _constant(0))


@_each(which, lanes, lanes)
def at_least(builder: ir.IRBuilder, a: ir.Value, b: ir.Value) -> ir.Value:
    return builder.icmp_unsigned(">=", a, b)


@_each(which, which, which)
def also(builder: ir.IRBuilder, a: ir.Value, b: ir.Value) -> ir.Value:
    return builder.and_(a, b)


@_each(which, which, which)
def either(builder: ir.IRBuilder, a: ir.Value, b: ir.Value) -> ir.Value:
    return builder.or_(a, b)


@_each(which, which, which)
def but(builder: ir.IRBuilder, a: ir.Value, b: ir.Value) -> ir.Value:
    """Those of a that are not of b."""
    return builder.and_(a, builder.not_(b))


for _sign, _function in ((operator.add, plus), (operator.lshift, left), (operator.rshift, right)):
    overload(_sign)(between(LanesType, _function))
for _sign, _longs, _bits in ((operator.and_, common, also), (operator.or_, joined, either)):
    overload(_sign)(between(LanesType, _longs))
    overload(_sign)(between(WhichType, _bits))
