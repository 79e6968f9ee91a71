"""Fill in what is missing in a table: one completed table, and several that show what is not known."""

import numpy as np

import iwae

rng = np.random.default_rng(0)
hidden = rng.normal(size=(600, 2))
whole = 100.0 + 20.0 * np.tanh(hidden @ rng.normal(size=(2, 6))) + 2.0 * rng.normal(size=(600, 6))
missing = rng.random(whole.shape) < 0.3
table = np.where(missing, np.nan, whole)

data = iwae.Dataset.from_arrays(table, likelihood="gaussian")
model = iwae.create_model(data, iwae.Architecture(6, latent=(4,), hidden=((32, 32),)))
model = iwae.fit(model, data, iwae.make_estimator("iwae:dreg", k=10), epochs=60, learning_rate=3e-3)

completed = iwae.impute(model, table, num_samples=1000)
print(f"error by the means of the columns: {np.std((whole - np.nanmean(table, axis=0))[missing]):.2f}")
print(f"error by the model: {np.sqrt(np.mean((completed - whole)[missing] ** 2)):.2f}")

tables = iwae.impute_multiple(model, table, 50, num_samples=1000)
low, high = np.quantile(tables, [0.05, 0.95], axis=0)
inside = np.mean((low <= whole)[missing] & (whole <= high)[missing])
print(f"intervals of 90 % hold {100 * inside:.0f} % of what was missing")
