"""How a bound is differentiated: (model, x, key) -> its value and a gradient estimate."""
