"""Linear models: a generalised linear model is a network of one layer, and the link function says which.

- The mean μ of y is η (Gaussian), σ(η) (Bernoulli), softmax(η) (categorical) or e^η (Poisson), with η = w x + b.
- The negative log likelihood of an example has, with these links, one and the same gradient dw = (μ − y) x.
- Gradient descent on it finds the coefficients that statsmodels finds by Newton's method.
- Gaussian maximum likelihood is least squares: −log p(y) = (y − μ)²/2 + log(2π)/2 at variance 1.
"""

import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import statsmodels.api as sm
from sklearn.datasets import load_diabetes

import lamella
import lamella.layers as L
from lamella import training

fair, parties, health = (getattr(sm.datasets, name).load().data for name in ("fair", "anes96", "randhie"))
factors, course = load_diabetes(return_X_y=True)
MODELS = {  # title: link, x, y, the same model in statsmodels, learning rate
    "linear: course of diabetes (index / 100)": (L.links.identity, factors, course / 100, sm.OLS, 0.3),
    "logistic: an affair or none": (L.links.logit, fair.drop(columns="affairs"), fair.affairs > 0, sm.Logit, 1.0),
    "softmax: one of 7 parties (η: log odds)": (
        L.links.softmax, parties[["logpopul", "selfLR", "age", "educ", "income"]], parties.PID, sm.MNLogit, 1.0,
    ),
    "Poisson: visits to a doctor, a year": (L.links.log, health.drop(columns="mdvis"), health.mdvis, sm.Poisson, 0.1),
}  # fmt: skip


def regression(link, x, y, reference, lr, rng, steps):
    x, y = np.asarray((x - x.mean(axis=0)) / x.std(axis=0)), np.asarray(y, float)
    theirs = np.asarray(reference(y, sm.add_constant(x)).fit(disp=0).params).reshape(x.shape[1] + 1, -1)
    y = np.eye(7)[y.astype(int)] if link is L.links.softmax else y[:, None]  # (N, K)
    model = L.Linear(x.shape[1], y.shape[1], rng=rng).to(dtype="float64")
    link.loss(model(x[:1]), y[:1], reduction="sum").backward()
    by_hand = (link.inverse(model(x[:1])).to_numpy() - y[:1]).T @ x[:1]
    found = {"gradient_error": float(abs(model.weight.grad - by_hand).max()), "theirs": theirs}
    optimizer = training.SGD(model.parameters(), lr=lr, momentum=0.9, nesterov=True)
    training.fit(model, (x, y), loss=link.loss, optimizer=optimizer, epochs=steps, batch_size=len(x), progress=False)
    ours = np.vstack([model.bias.to_numpy(), model.weight.to_numpy().T])
    found["ours"] = ours[:, 1:] - ours[:, :1] if link is L.links.softmax else ours  # statsmodels: the first class is 0
    found["difference"] = float(abs(found["ours"] - theirs).max())
    mean = link.inverse(model(x)).to_numpy().ravel()
    eta = (L.links.logit if link is L.links.softmax else link).link(mean).to_numpy()  # of a class its log odds
    order = np.argsort(eta)
    groups = np.array_split(order, 15)  # of equal size, from low to high predictors
    observed = [[values.ravel()[group].mean() for group in groups] for values in (eta, y)]
    return found | {"eta": eta[order], "mean": mean[order], "observed": observed}


def measure(rng=None, steps=500):
    rng = rng or lamella.Generator(0)
    return {title: regression(*model, rng=rng, steps=steps) for title, model in MODELS.items()}


def draw(found):
    figure, axes = plt.subplots(2, 4, figsize=(16, 8), layout="constrained")
    figure.suptitle("Four generalised linear models, each a network of one layer and its link function")
    for (above, below), (title, one) in zip(axes.T, found.items(), strict=True):
        above.plot(one["eta"], one["mean"], label="expected, μ(η)")
        above.plot(*one["observed"], "o", label="observed, mean of a fifteenth")
        above.set(title=title, xlabel="linear predictor η", ylabel="y")
        below.axline((0, 0), slope=1, color="lightgrey")
        below.plot(one["theirs"].ravel(), one["ours"].ravel(), "o")
        below.set(title=f"The same but for {one['difference']:.0e}")
        below.set(xlabel="coefficient by statsmodels", ylabel="coefficient by gradient descent")
    axes[0, 0].legend()
    return figure


if __name__ == "__main__":
    found = measure()
    for title, one in found.items():
        print(title, f"differ: gradient {one['gradient_error']:.0e}, coefficients {one['difference']:.0e}", sep="; ")
    folder = Path(*sys.argv[1:] or ["lectures-output"])
    folder.mkdir(parents=True, exist_ok=True)
    draw(found).savefig(folder / "linear_models.png")
