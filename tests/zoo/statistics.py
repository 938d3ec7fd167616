"""Zoo: estimation, likelihoods and learning, as their users write them."""

from itertools import pairwise

import numpy as np

from tests.zoo.entry import Entry


def kalman_step(mean, covariance, measurement):
    """One predict and update step of a Kalman filter (constant velocity, position measured)."""
    dt = 0.5
    transition = np.array([[1.0, dt], [0.0, 1.0]])
    observe = np.array([[1.0, 0.0]])
    process, noise = 0.1 * np.eye(2), np.array([[0.3]])
    mean = transition @ mean
    covariance = transition @ covariance @ transition.T + process
    innovation = measurement - observe @ mean
    spread = observe @ covariance @ observe.T + noise
    gain = covariance @ observe.T @ np.linalg.inv(spread)
    return {
        "mean": mean + gain @ innovation,
        "covariance": (np.eye(2) - gain @ observe) @ covariance,
    }


def information_filter(information, vector):
    """Mean of a Gaussian from its information form: solve instead of invert."""
    symmetric = 0.5 * (information + information.T)
    mean = np.linalg.solve(symmetric, vector)
    return mean, 0.5 * vector @ mean


def hmm_log_likelihood(log_start, log_transition, log_emission):
    """Forward pass of a hidden Markov model; emission: (time, states)."""

    def logsumexp(a):
        top = np.max(a, axis=0)
        return top + np.log(np.sum(np.exp(a - top), axis=0))

    log_alpha = log_start + log_emission[0]
    for t in range(1, log_emission.shape[0]):
        log_alpha = logsumexp(log_alpha[:, None] + log_transition) + log_emission[t]
    return logsumexp(log_alpha)


def logistic_loss(w, features, labels):
    """Mean negative log-likelihood of logistic regression with a ridge; labels are -1 or 1."""
    margin = labels * (features @ w)
    return np.mean(np.logaddexp(0.0, -margin)) + 0.05 * np.dot(w, w)


def gaussian_process_loo(log_parameters, x, y):
    """Leave-one-out log predictive density of a Gaussian process (Rasmussen & Williams 5.4.2)."""
    length, amplitude, noise = np.exp(log_parameters)
    squared = (x[:, None] - x[None, :]) ** 2
    kernel = amplitude**2 * np.exp(-0.5 * squared / length**2) + noise**2 * np.eye(len(x))
    inverse = np.linalg.inv(kernel)
    variance = 1.0 / np.diagonal(inverse)
    wrong = (inverse @ y) * variance
    return np.sum(-0.5 * np.log(2 * np.pi * variance) - 0.5 * wrong**2 / variance)


def michaelis_menten_residuals(parameters, substrate, rate):
    """Residuals of an enzyme-kinetics fit: bounded parameters, Huber weights, one-sided noise."""
    vmax = np.maximum(parameters[0], 1e-3)
    km = np.clip(parameters[1], 0.01, 50.0)
    predicted = vmax * substrate / (km + substrate)
    wrong = predicted - rate
    tail = np.sqrt(np.maximum(np.abs(wrong) - 0.25, 0.25))
    huber = np.where(np.abs(wrong) < 0.5, wrong, np.sign(wrong) * tail)
    return huber / np.minimum(1.0 + substrate, 5.0)


def cox_partial_likelihood(beta, covariates, event):
    """Log partial likelihood of Cox's survival model; rows sorted by time, no ties."""
    risk = covariates @ beta
    at_risk = np.flip(np.cumsum(np.flip(np.exp(risk))))
    return np.sum(np.where(event, risk - np.log(at_risk), 0.0))


def mlp(weights, x):
    """Two-layer perceptron; weights is a list of dicts, x: (batch, features)."""
    for layer in weights[:-1]:
        x = np.tanh(x @ layer["w"] + layer["b"])
    return x @ weights[-1]["w"] + weights[-1]["b"]


def attention(q, k, v):
    """Causal softmax attention with heads; q, k, v: (time, heads, width)."""
    scores = np.einsum("ihd,jhd->hij", q, k) / np.sqrt(q.shape[-1])
    time = q.shape[0]
    allowed = np.tril(np.ones((time, time), dtype=bool))
    scores = np.where(allowed, scores, -1e30)
    scores = scores - scores.max(axis=-1, keepdims=True)
    weights = np.exp(scores)
    weights /= weights.sum(axis=-1, keepdims=True)
    return np.einsum("hij,jhd->ihd", weights, v)


def softmax_cross_entropy(logits, labels):
    """Mean cross-entropy of class labels after layer normalization; logits: (batch, classes)."""
    z = (logits - logits.mean(axis=1, keepdims=True)) / logits.std(axis=1, keepdims=True)
    log_p = z - np.log(np.exp(z).sum(axis=1, keepdims=True))
    return -np.take_along_axis(log_p, labels[:, None], axis=1).mean()


def mean_shift_step(points):
    """One mean-shift step, written once for any array API namespace; points: (n, d)."""
    xp = points.__array_namespace__()
    d = xp.expand_dims(points, axis=0) - xp.expand_dims(points, axis=1)
    weight = xp.exp(-0.5 * xp.vecdot(d, d))
    total = xp.sum(weight, axis=1, keepdims=True)
    return xp.matmul(weight, points) / total


def autoregressive_forecast(history, coefficients):
    """Six steps ahead of an AR(3) model, growing a list as one does."""
    values = [history[0], history[1], history[2]]
    for _ in range(6):
        last = np.stack(values[-3:])
        values.append(np.tanh(coefficients @ last))
    return np.stack(values[3:])


def american_option(volatility, spot):
    """American put on a binomial tree, rolled back in place."""
    steps, dt, strike, interest = 6, 0.1, 1.0, 0.05
    up = np.exp(volatility * np.sqrt(dt))
    p = (np.exp(interest * dt) - 1 / up) / (up - 1 / up)
    price = spot * up ** (2.0 * np.arange(steps + 1) - steps)
    value = np.maximum(strike - price, 0.0)
    for _ in range(steps):
        price = price[:-1] * up
        held = np.exp(-interest * dt) * (p * value[1:] + (1 - p) * value[:-1])
        value = np.maximum(held, strike - price)
    return value[0]


def convolution_and_pooling(image, kernel):
    """A padded 3 x 3 convolution, a leaky rectifier and 2 x 2 max pooling; image: (h, w)."""
    height, width = image.shape
    padded = np.pad(image, 1)
    z = np.zeros_like(image)
    for i in range(3):
        for j in range(3):
            z += kernel[i, j] * padded[i : i + height, j : j + width]
    z = np.where(z > 0, z, 0.1 * z)
    return z.reshape(height // 2, 2, width // 2, 2).max(axis=(1, 3))


def batch_whitening(x):
    """Features of a batch made uncorrelated by Newton's iteration for the inverse root."""
    centered = x - x.mean(axis=0)
    covariance = centered.T @ centered / len(x) + 0.1 * np.eye(x.shape[1])
    scaled = covariance / np.trace(covariance)
    root = np.eye(x.shape[1])
    for _ in range(4):
        root = 1.5 * root - 0.5 * root @ root @ root @ scaled
    return centered @ root / np.sqrt(np.trace(covariance))


def epidemic(beta, start):
    """Deaths of an age-structured epidemic after eight weeks; start: (4 states, ages)."""
    contacts = np.outer([1.0, 0.6, 0.3], [0.8, 0.7, 0.4])
    s, e, i, r = start[0], start[1], start[2], start[3]
    deaths = []
    for _ in range(8):
        force = beta * (contacts @ (i / start.sum(axis=0)))
        s, e, i, r = s - s * force, e + s * force - 0.5 * e, i + 0.5 * e - 0.4 * i, r + 0.4 * i
        deaths.append(0.01 * i)
    return np.cumsum(np.stack(deaths, axis=-1), axis=-1)[:, ::2]


def _mlp_sample(rng):
    sizes = [3, 4, 2]
    layers = [
        {"w": rng.standard_normal((a, b)) / np.sqrt(a), "b": 0.1 * rng.standard_normal(b)} for a, b in pairwise(sizes)
    ]
    return layers, rng.standard_normal((2, 3))


def _kalman_sample(rng):
    a = rng.standard_normal((2, 2))
    return rng.standard_normal(2), a @ a.T + np.eye(2), rng.standard_normal(1)


def _information_sample(rng):
    a = rng.standard_normal((3, 3))
    return a @ a.T + 2 * np.eye(3), rng.standard_normal(3)


def _log_normalized(a):
    return a - np.log(np.exp(a).sum(axis=-1, keepdims=True))


def _hmm_sample(rng):
    start, transition = rng.standard_normal(3), rng.standard_normal((3, 3))
    return (_log_normalized(start), _log_normalized(transition), rng.standard_normal((4, 3)))


def _logistic_sample(rng):
    return (rng.standard_normal(4), rng.standard_normal((9, 4)), rng.choice([-1.0, 1.0], 9))


def _process_sample(rng):
    x = np.linspace(0, 3, 6)
    return np.log([0.8, 1.2, 0.4]) + 0.1 * rng.standard_normal(3), x, np.sin(2 * x)


def _enzyme_sample(rng):
    substrate = np.array([0.2, 0.5, 1.0, 2.0, 6.0, 10.0])
    rate = 3.0 * substrate / (1.5 + substrate) + np.array([0.1, -0.1, 0.05, 1.5, -0.1, -1.4])
    return np.array([3.0, 1.5]) + 0.1 * rng.standard_normal(2), substrate, rate


def _cox_sample(rng):
    return (0.5 * rng.standard_normal(3), rng.standard_normal((7, 3)), rng.uniform(size=7) < 0.7)


def _attention_sample(rng):
    return tuple(rng.standard_normal((3, 2, 2)) for _ in range(3))


ENTRIES = [
    Entry(kalman_step, _kalman_sample, (0, 1, 2), kind="tree"),
    Entry(information_filter, _information_sample, (0, 1), kind="tree"),
    Entry(hmm_log_likelihood, _hmm_sample, (0, 1, 2), kind="scalar"),
    Entry(logistic_loss, _logistic_sample, kind="scalar"),
    Entry(gaussian_process_loo, _process_sample, kind="scalar"),
    Entry(michaelis_menten_residuals, _enzyme_sample),
    Entry(cox_partial_likelihood, _cox_sample, (0, 1), kind="scalar"),
    Entry(mlp, _mlp_sample, (0, 1)),
    Entry(attention, _attention_sample, (0, 1, 2)),
    Entry(
        softmax_cross_entropy,
        lambda r: (r.standard_normal((4, 3)), np.array([0, 2, 1, 2])),
        kind="scalar",
    ),
    Entry(
        american_option,
        lambda r: (np.float64(r.uniform(0.2, 0.4)), np.float64(r.uniform(0.9, 1.1))),
        (0, 1),
        kind="scalar",
    ),
    Entry(
        convolution_and_pooling,
        lambda r: (r.standard_normal((4, 4)), r.standard_normal((3, 3))),
        (0, 1),
    ),
    Entry(batch_whitening, lambda r: (r.standard_normal((5, 3)),)),
    Entry(
        epidemic,
        lambda r: (np.float64(r.uniform(0.5, 1)), r.uniform(0.5, 1, (4, 3))),
        (0, 1),
    ),
    Entry(mean_shift_step, lambda r: (r.standard_normal((4, 2)),)),
    Entry(autoregressive_forecast, lambda r: (r.standard_normal(3), r.standard_normal(3)), (0, 1)),
]
