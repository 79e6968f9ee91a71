"""From a NumPy array of real numbers, some of them missing, to the log density of every row."""

import numpy as np

import iwae

rng = np.random.default_rng(0)
hidden = rng.normal(size=(600, 2))
rows = 10.0 + 3.0 * np.tanh(hidden @ rng.normal(size=(2, 6))) + 0.3 * rng.normal(size=(600, 6))
rows[rng.random(rows.shape) < 0.1] = np.nan

data = iwae.Dataset.from_arrays(rows[:500], rows[500:], likelihood="gaussian")
model = iwae.create_model(data, iwae.Architecture(6, latent=(3,), hidden=((32, 32),)))
model = iwae.fit(model, data, iwae.make_estimator("iwae:dreg", k=10), epochs=60, learning_rate=3e-3)
log_density = iwae.log_likelihood(model, data.test, num_samples=2000)
print(f"log p(x) of what is observed: {log_density.mean():.2f} nats on average over {len(log_density)} rows")

strange = np.array([[0.0, 20.0, 10.0, 10.0, 10.0, 10.0]])
print(f"of a strange row: {iwae.log_likelihood(model, strange, num_samples=2000)[0]:.0f} nats")
