"""Detectors: the scoring path, from rows to energies, the same to the bit however rows are batched.

With W_k the inverse Cholesky factor of component k and c a common centre, all ||W_k (x - mu_k)||^2 come
out of one matrix product with x - c, a constant row of ones carrying the offsets W_k (mu_k - c). The
product always has one fixed shape, the last rows padded, so that no row's sums depend on its neighbours;
up to 16 rows have a narrower shape where it gives the same bits, which is tried when the scorer is made.
Rows lie along the fast axis, where everything after the product runs lane by lane. From 32 features on
the product goes by block rows of the triangle, which leaves out most of its zeros.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from monitor.detectors.inputs import FloatArray
from monitor.detectors.threads import exact_products

F64 = NDArray[np.float64]

LOG_2PI = math.log(2 * math.pi)
# A quarter of the digits that an energy in single precision promises (1e-4) are kept in reserve.
_SINGLE_ERROR = 2e-5
_BLOCK = 16
# Up to this many columns OpenBLAS and MKL sum a row in one go; beyond, where they cut depends on threads.
_DEPTH = 192
_BLOCKED_FROM = 32
# Lanes of a chunk: enough to fill the kernels, few enough for the cache and for the latency of one event.
_CPU_CELLS = 1 << 16
_CPU_LANES = (128, 1024)
_SMALL_LANES = 16
_CUDA_CELLS = 1 << 24
_CUDA_LANES = (1024, 1 << 16)
_PROBES = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Gaussians:
    """A mixture as the scoring path wants it, float64.

    `inverse` holds the inverse lower Cholesky factors: (K, D, D); (1, D, D) when all components share one;
    (K, D) when they are diagonal.
    """

    weights: F64
    means: F64
    inverse: F64

    @property
    def log_constant(self) -> F64:
        """Return log phi_k - (D log 2 pi + log det Sigma_k) / 2 of each component."""
        diagonal = self.inverse if self.inverse.ndim == 2 else np.diagonal(self.inverse, axis1=1, axis2=2)
        with np.errstate(divide="ignore"):
            constants: F64 = np.log(self.weights) - 0.5 * self.means.shape[1] * LOG_2PI + np.log(diagonal).sum(1)
        return constants


@dataclass(frozen=True, slots=True, kw_only=True)
class Factors:
    """The arrays of a mixture as the kernels want them.

    `blocks` are the block rows of all scaled triangles, (K * height, columns + 1) each, offsets in front;
    or the one shared triangle; or the (K, D, 1) inverse deviations. The last two have their `offset` apart.
    Everything is scaled so that the sum of squares is half the squared distance.
    """

    centre: F64
    blocks: tuple[F64, ...]
    offset: F64 | None
    log_constant: F64
    lanes: int

    @property
    def k(self) -> int:
        """The number of components."""
        return len(self.log_constant)

    @property
    def d(self) -> int:
        """The number of features."""
        return len(self.centre)


class Kernel(Protocol):
    """Turns up to `lanes` rows into energies, always by the same operations on arrays of one shape."""

    def __call__(self, part: FloatArray, out: FloatArray, shares: FloatArray | None) -> None:
        """Write the energies of the rows `part` to `out`, and the components' shares (n, K) where they are wanted."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Scorer:
    """The cached factors of one mixture on one device, for rows of one precision."""

    mixture: Gaussians
    lanes: int
    dtype: np.dtype[Any]
    device: str
    make_kernel: Callable[[], Kernel]
    make_small: Callable[[], Kernel] | None = None
    spare: list[Kernel] = field(default_factory=list)
    spare_small: list[Kernel] = field(default_factory=list)
    exact: "list[Scorer]" = field(default_factory=list)

    def energies(self, x: FloatArray, shares: FloatArray | None = None) -> FloatArray:
        """Return the energy of each row, in the rows' own precision, rounded once.

        Rows must be of the right width. Those that hold NaN or infinity give NaN; those so far away that
        the square of their distance has no number give the largest number there is.

        Args:
            x: The rows.
            shares: Filled, where it is given, with each component's share in each row, (n, K); with 0 for rows
                that are as far from all components as numbers go.
        """
        out = np.empty(len(x), dtype=x.dtype)
        if self.make_small is not None and len(x) <= _SMALL_LANES:
            _run(x, out, shares, self.spare_small, self.make_small, _SMALL_LANES)
        else:
            _run(x, out, shares, self.spare, self.make_kernel, self.lanes)
        finite = np.isfinite(out)
        if not finite.all():
            out[~finite], far = self._far(x[~finite])
            if shares is not None:
                shares[~finite] = far
        return out

    def _far(self, rows: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Score again in double precision what had no number in single."""
        shares = np.zeros((len(rows), len(self.mixture.weights)))
        if rows.dtype == np.float64:
            energies: FloatArray = np.where(np.isfinite(rows).all(axis=1), np.inf, np.nan)
        else:
            if not self.exact:
                self.exact.append(make_scorer(self.mixture, np.float64, self.device))
            energies = self.exact[0].energies(rows.astype(np.float64), shares)
        return np.minimum(energies, np.finfo(rows.dtype).max).astype(rows.dtype), shares


def _run(
    x: FloatArray,
    out: FloatArray,
    shares: FloatArray | None,
    spare: list[Kernel],
    make: Callable[[], Kernel],
    lanes: int,
) -> None:
    # Taking a kernel with its buffers off the list is atomic, so threads never share one.
    kernel = spare.pop() if spare else make()
    with np.errstate(over="ignore", invalid="ignore"):
        for at in range(0, len(x), lanes):
            part = x[at : at + lanes]
            kernel(part, out[at : at + len(part)], None if shares is None else shares[at : at + len(part)])
    spare.append(kernel)


class CpuKernel:
    """The kernel for the processor, in numpy: its calls cost less than torch's and run as fast."""

    def __init__(self, factors: Factors, work: type[np.floating[Any]]) -> None:
        self.blocks = [block.astype(work) for block in factors.blocks]
        self.offset = None if factors.offset is None else factors.offset.astype(work)
        self.centre = factors.centre[:, None].astype(work)
        self.log_constant = factors.log_constant[:, None].astype(work)
        k, d, lanes = factors.k, factors.d, factors.lanes
        self.rows = np.zeros((d + 1, lanes), dtype=work)
        self.rows[0] = 1.0
        if self.offset is None:
            self.white = [np.empty((len(block), lanes), dtype=work) for block in self.blocks]
        else:
            self.white = [np.empty((k, d, lanes), dtype=work)]
        self.cells = [white.reshape(k, -1, lanes) for white in self.white]
        self.half = np.empty((k, lanes), dtype=work)
        self.part = np.empty((k, lanes), dtype=work)
        self.top = np.empty(lanes, dtype=work)
        self.sum = np.empty(lanes, dtype=work)

    def __call__(self, part: FloatArray, out: FloatArray, shares: FloatArray | None) -> None:
        """Write the energies of the rows `part` to `out`, and the components' shares where they are wanted."""
        n = len(part)
        np.subtract(part.T, self.centre, out=self.rows[1:, :n])
        if self.offset is None:
            self._triangles()
        else:
            self._shared_or_diagonal(self.offset)
        half, top, total = self.half, self.top, self.sum
        np.subtract(self.log_constant, half, out=half)
        if len(half) == 1:
            np.negative(half[0, :n], out=out)
            if shares is not None:
                shares[:] = 1
            return
        np.maximum.reduce(half, axis=0, out=top)
        np.subtract(half, top, out=half)
        np.exp(half, out=half)
        np.add.reduce(half, axis=0, out=total)
        if shares is not None:
            np.divide(half, total, out=half)
            shares[:] = half[:, :n].T
        np.log(total, out=total)
        np.add(total, top, out=total)
        np.negative(total[:n], out=out, casting="same_kind")

    def _triangles(self) -> None:
        for i, (block, white, cells) in enumerate(zip(self.blocks, self.white, self.cells, strict=True)):
            _product(block, self.rows, white)
            np.multiply(white, white, out=white)
            np.add.reduce(cells, axis=1, out=self.part if i else self.half)
            if i:
                np.add(self.half, self.part, out=self.half)

    def _shared_or_diagonal(self, offset: FloatArray) -> None:
        (block,), (white,) = self.blocks, self.white
        if block.ndim == 3:
            np.multiply(self.rows[1:], block, out=white)
            np.subtract(white, offset, out=white)
        else:
            base = np.empty((len(block), self.rows.shape[1]), dtype=self.rows.dtype)
            _product(block, self.rows[1:], base)
            np.subtract(base, offset, out=white)
        np.multiply(white, white, out=white)
        np.add.reduce(white, axis=1, out=self.half)


def _product(block: FloatArray, rows: FloatArray, out: FloatArray) -> None:
    """Write block @ rows[:columns] to `out`, in pieces of a depth that no library cuts again."""
    np.dot(block[:, :_DEPTH], rows[: min(_DEPTH, block.shape[1])], out=out)
    for at in range(_DEPTH, block.shape[1], _DEPTH):
        piece = block[:, at : at + _DEPTH]
        out += np.dot(piece, rows[at : at + piece.shape[1]])


class CudaKernel:
    """The kernel for a GPU, in torch: the same operations on wider chunks."""

    def __init__(self, factors: Factors, work: torch.dtype, device: str) -> None:
        kind: dict[str, Any] = {"dtype": work, "device": device}
        self.blocks = [torch.as_tensor(block, **kind) for block in factors.blocks]
        self.offset = None if factors.offset is None else torch.as_tensor(factors.offset, **kind)
        self.centre = torch.as_tensor(factors.centre[:, None], **kind)
        self.log_constant = torch.as_tensor(factors.log_constant[:, None], **kind)
        self.rows = torch.zeros(factors.d + 1, factors.lanes, **kind)
        self.rows[0] = 1.0
        self.k = factors.k

    def __call__(self, part: FloatArray, out: FloatArray, shares: FloatArray | None) -> None:
        """Write the energies of the rows `part` to `out`, and the components' shares where they are wanted."""
        n = len(part)
        host = torch.from_numpy(part if part.flags.writeable else part.copy())
        torch.sub(host.to(self.rows.device).T, self.centre, out=self.rows[1:, :n])
        with exact_products():
            half = self._triangles() if self.offset is None else self._shared_or_diagonal(self.offset)
        joint = self.log_constant - half
        log_density = torch.logsumexp(joint, dim=0)
        out[:] = log_density[:n].neg().to("cpu").numpy()
        if shares is not None:
            shares[:] = torch.exp(joint - log_density)[:, :n].T.to("cpu").numpy()

    def _triangles(self) -> Tensor:
        squares = [
            torch.mm(block, self.rows[: block.shape[1]]).square_().view(self.k, -1, self.rows.shape[1]).sum(1)
            for block in self.blocks
        ]
        return torch.stack(squares).sum(0)

    def _shared_or_diagonal(self, offset: Tensor) -> Tensor:
        (block,) = self.blocks
        base = self.rows[1:] * block if block.dim() == 3 else block @ self.rows[1:]
        return (base - offset).square_().sum(1)


def make_scorer(mixture: Gaussians, dtype: type[np.floating[Any]], device: str = "cpu") -> Scorer:
    """Return the scorer of a mixture for rows of the given precision.

    float32 rows are scored in single precision where a probe with rows of the mixture shows that this
    keeps the energies within a fifth of the promised 1e-4, and in double precision elsewhere.
    """
    double = _build(mixture, np.float64, np.float64, device)
    if dtype != np.float32:
        return double
    single = _build(mixture, np.float32, np.float32, device)
    probes = _probes(mixture).astype(np.float32)
    truth = double.energies(probes.astype(np.float64))
    error = np.abs(single.energies(probes) - truth) / np.maximum(np.abs(truth), 1.0)
    return single if error.max() < _SINGLE_ERROR else _build(mixture, np.float64, np.float32, device)


def _build(mixture: Gaussians, work: type[np.floating[Any]], rows: type[np.floating[Any]], device: str) -> Scorer:
    place = torch.device(device)
    factors = _factors(mixture, rows, on_gpu=place.type == "cuda")

    def make_kernel() -> Kernel:
        if place.type == "cuda":
            return CudaKernel(factors, torch.float32 if work == np.float32 else torch.float64, device)
        return CpuKernel(factors, work)

    scorer = Scorer(mixture=mixture, lanes=factors.lanes, dtype=np.dtype(work), device=device, make_kernel=make_kernel)
    return scorer if place.type == "cuda" else _with_small(scorer, factors, work, rows)


def _with_small(scorer: Scorer, factors: Factors, work: type[np.floating[Any]], rows: type[np.floating[Any]]) -> Scorer:
    """Return the scorer with a second, narrow shape for a few rows, if this machine gives the same bits.

    Kernels of the libraries for the two shapes add in the same order as a rule, not by promise. So it is
    tried on the probes, and one differing bit keeps the one shape for all.
    """
    narrow = replace(factors, lanes=_SMALL_LANES)
    small = replace(scorer, make_small=lambda: CpuKernel(narrow, work), spare=[], spare_small=[], exact=[])
    probes = _probes(scorer.mixture).astype(rows)
    shares = np.empty((2, len(probes), len(scorer.mixture.weights)), rows)
    wide = scorer.energies(probes, shares[0])
    places = [slice(at, at + _SMALL_LANES) for at in range(0, _PROBES, _SMALL_LANES)]
    pieces = [small.energies(probes[place], shares[1][place]) for place in places]
    same = np.array_equal(np.concatenate(pieces), wide, equal_nan=True)
    return small if same and np.array_equal(shares[0], shares[1], equal_nan=True) else scorer


def _factors(mixture: Gaussians, rows: type[np.floating[Any]], *, on_gpu: bool) -> Factors:
    k, d = mixture.means.shape
    # The centre must be a number of the rows' precision: then x - centre is rounded once, and relatively.
    centre = (mixture.weights @ mixture.means).astype(rows).astype(np.float64)
    inverse: F64 = mixture.inverse * math.sqrt(0.5)
    away = mixture.means - centre
    blocks: list[F64]
    if inverse.ndim == 2:
        blocks, offset = [inverse[:, :, None]], (inverse * away)[:, :, None]
    elif len(inverse) == 1 and k > 1:
        blocks, offset = [inverse[0]], (away @ inverse[0].T)[:, :, None]
    else:
        blocks, offset = _block_rows(inverse, np.einsum("kij,kj->ki", inverse, away)), None
    low, high = _CUDA_LANES if on_gpu else _CPU_LANES
    cells = _CUDA_CELLS if on_gpu else _CPU_CELLS
    lanes = 1 << round(math.log2(max(1, cells // (k * d))))
    return Factors(
        centre=centre,
        blocks=tuple(blocks),
        offset=offset,
        log_constant=mixture.log_constant,
        lanes=min(max(lanes, low), high),
    )


def _block_rows(inverse: F64, offset: F64) -> list[F64]:
    """Return the block rows of all lower triangles, each as far as it is not zero, offsets in front."""
    k, d, _ = inverse.shape
    height = _BLOCK if d >= _BLOCKED_FROM else d
    return [
        np.concatenate(
            [-offset[:, at : at + height, None], inverse[:, at : at + height, : min(at + height, d)]], axis=2
        ).reshape(k * min(height, d - at), -1)
        for at in range(0, d, height)
    ]


def _probes(mixture: Gaussians) -> F64:
    """Return rows drawn from the mixture, and rows some deviations away from it."""
    rng = np.random.default_rng(0)
    d = mixture.means.shape[1]
    alive = mixture.weights > 0
    place = rng.choice(np.flatnonzero(alive), _PROBES)
    noise = rng.standard_normal((_PROBES, d)) * np.where(np.arange(_PROBES) % 2, 1.0, 4.0)[:, None]
    if mixture.inverse.ndim == 2:
        scaled: F64 = mixture.means[place] + noise / mixture.inverse[place]
        return scaled
    shared = len(mixture.inverse) == 1
    away = np.empty((_PROBES, d))
    for component in np.unique(place):
        rows = place == component
        away[rows] = np.linalg.solve(mixture.inverse[0 if shared else component], noise[rows].T).T
    result: F64 = mixture.means[place] + away
    return result
