"""Operations on vectors that numba's compiled functions call: each is written as the LLVM instructions that it stands for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from llvmlite import binding, ir
from numba import types
from numba.core import config
from numba.core.base import BaseContext
from numba.core.typing import Signature
from numba.extending import intrinsic

BYTES, MARKS = ir.VectorType(ir.IntType(8), 64), ir.VectorType(ir.IntType(1), 64)


class Value(Protocol):
    """What an operation gives, as a compiled function sees it; of numbers and vectors alike."""

    def __add__(self, other: object) -> Value: ...
    def __radd__(self, other: object) -> Value: ...
    def __sub__(self, other: object) -> Value: ...
    def __mul__(self, other: object) -> Value: ...
    def __and__(self, other: object) -> Value: ...
    def __rand__(self, other: object) -> Value: ...
    def __or__(self, other: object) -> Value: ...
    def __lshift__(self, other: object) -> Value: ...
    def __rlshift__(self, other: object) -> Value: ...
    def __rshift__(self, other: object) -> Value: ...
    def __invert__(self) -> Value: ...
    def __index__(self) -> int: ...


Operation = Callable[..., Value]


def features() -> str:
    """Of the processor that numba compiles for: this one, or what NUMBA_CPU_FEATURES says."""
    said: str | None = vars(config)["CPU_FEATURES"]
    return binding.get_host_cpu_features().flatten() if said is None else said


def operation(result: types.Type, *arguments: types.Type | None) -> Callable[[Callable[..., ir.Value]], Operation]:
    """Decorator: a function of an IR builder becomes one that compiled functions call. None: an argument of any type (an array)."""

    def make(build: Callable[..., ir.Value]) -> Operation:
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
            5: lambda context, a, b, c, d, e: typed(a, b, c, d, e),
        }
        made: Operation = intrinsic(by_number[len(arguments)])
        return made

    return make


def between(kind: type[types.Type], function: Operation) -> Callable[..., Operation | None]:
    """What numba asks for an operator: its implementation for two vectors of a kind, none for anything else."""
    # Lambdas, because numba compares both lists of arguments, annotations included.
    return lambda a, b: (lambda a, b: function(a, b)) if isinstance(a, kind) and isinstance(b, kind) else None


@operation(types.uint64, None, types.uint64, None, types.uint64, types.uint8)
def copied(
    builder: ir.IRBuilder, source: ir.Value, begin: ir.Value, to: ir.Value, at: ir.Value, byte: ir.Value
) -> ir.Value:
    """Copies 64 bytes of one array to another; bit i of what it returns is set where byte i of them is equal to `byte`."""
    read = _bytes(builder, source, begin)
    builder.store(read, _place(builder, to, at), align=1)
    return _equal(builder, read, byte)


@operation(types.uint64, None, types.uint64, types.uint8)
def equal(builder: ir.IRBuilder, source: ir.Value, at: ir.Value, byte: ir.Value) -> ir.Value:
    """Bit i is set where byte i of 64 is equal to `byte`."""
    return _equal(builder, _bytes(builder, source, at), byte)


@operation(types.uint64, None, types.uint64, None, types.uint64, types.uint64)
def copied_some(
    builder: ir.IRBuilder, source: ir.Value, begin: ir.Value, to: ir.Value, at: ir.Value, those: ir.Value
) -> ir.Value:
    """Copies those of 64 bytes whose bit is set, one behind the other, and 0 behind them; how many they are (AVX-512 VBMI2)."""
    nothing, compress = ir.Constant(BYTES, [0] * 64), "llvm.x86.avx512.mask.compress.v64i8"
    some = called(
        builder, compress, _bytes(builder, source, begin), nothing, builder.bitcast(those, MARKS), result=BYTES
    )
    builder.store(some, _place(builder, to, at), align=1)
    return called(builder, "llvm.ctpop.i64", those, result=those.type)


@operation(types.uint64, types.uint64)
def lowest(builder: ir.IRBuilder, bits: ir.Value) -> ir.Value:
    """Which bit is the lowest that is set, of those of a number that is not 0."""
    return called(builder, "llvm.cttz.i64", bits, ir.Constant(ir.IntType(1), 1), result=bits.type)


def called(builder: ir.IRBuilder, name: str, *args: ir.Value, result: ir.Type) -> ir.Value:
    """One of LLVM's own functions."""
    known = builder.module.globals.get(name)
    return builder.call(
        known or ir.Function(builder.module, ir.FunctionType(result, [a.type for a in args]), name), args
    )


def _place(builder: ir.IRBuilder, data: ir.Value, at: ir.Value) -> ir.Value:
    return builder.bitcast(builder.gep(data, [at]), BYTES.as_pointer())


def _bytes(builder: ir.IRBuilder, data: ir.Value, at: ir.Value) -> ir.Value:
    return builder.load(_place(builder, data, at), align=1)


def _equal(builder: ir.IRBuilder, read: ir.Value, byte: ir.Value) -> ir.Value:
    nothing, first = ir.Constant(BYTES, ir.Undefined), ir.Constant(ir.VectorType(ir.IntType(32), 64), [0] * 64)
    same = builder.shuffle_vector(builder.insert_element(nothing, byte, ir.IntType(32)(0)), nothing, first)
    return builder.bitcast(builder.icmp_unsigned("==", read, same), ir.IntType(64))
