"""From embeddings to phenotypes: principal components, what covariates leave of them, and ranks made normal.

Shape letters: N people, D width of an embedding, P phenotypes (components), C columns of covariates with the intercept.
"""

from __future__ import annotations

import numpy as np

from trainer.errors import UserError

BLOM = 3 / 8
"""Blom's offset c of (rank - c) / (n + 1 - 2c)."""
FLAT = 1e-6
"""Singular values below this share of the largest are rounding of float32 features, no direction of variation."""


def principal_components(x_ND: np.ndarray, components: int) -> tuple[np.ndarray, np.ndarray]:
    """Scores of the first principal components, float64 [N, P], and the share of the variance that each explains, [P].

    By a full singular value decomposition of the centred features, not scaled. A component's sign is free: here its largest loading
    is positive, so that two runs on any machine agree.

    Raises:
        UserError: fewer directions of variation than components, as of an encoder that gives everybody the same vector.
    """
    centred_ND = x_ND.astype(np.float64)
    centred_ND = centred_ND - centred_ND.mean(0)
    u_NK, s_K, loading_KD = np.linalg.svd(centred_ND, full_matrices=False)
    # Rounding of float32 numbers grows with their size, not with their spread.
    floor = max(FLAT * s_K[0], np.finfo(np.float32).eps * float(np.abs(x_ND).max(initial=0)) * len(x_ND) ** 0.5)
    directions = int((s_K > floor).sum())
    if directions < components:
        raise UserError(
            f"embeddings of {len(x_ND)} people vary in {directions} directions only, {components} components are asked for: "
            f"ask for fewer (--components), or look whether the encoder has collapsed"
        )
    sign_P = np.sign(loading_KD[np.arange(components), np.abs(loading_KD[:components]).argmax(1)])
    return u_NK[:, :components] * s_K[:components] * sign_P, s_K[:components] ** 2 / (s_K**2).sum()


def residuals(basis_NC: np.ndarray, y_NP: np.ndarray) -> np.ndarray:
    """What is left of y after its projection on an orthonormal basis. Twice: the second pass takes what rounding left of the first."""
    for _ in range(2):
        y_NP = y_NP - basis_NC @ (basis_NC.T @ y_NP)
    return y_NP


def inverse_normal(y_NP: np.ndarray) -> np.ndarray:
    """Rank-based inverse normal transform of each column, ties at their mean rank: Phi^-1((rank - 3/8) / (n + 1/4)).

    Source: Blom 1958; Beasley, Erickson and Allison 2009, Behavior Genetics 39.
    """
    from scipy.special import ndtri
    from scipy.stats import rankdata

    return ndtri((rankdata(y_NP, axis=0) - BLOM) / (len(y_NP) + 1 - 2 * BLOM))
