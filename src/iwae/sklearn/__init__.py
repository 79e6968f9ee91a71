"""scikit-learn estimators, for the extra `sklearn`: `IWAEDensity`, a density and codes, and `IWAEImputer`, for missing
values.
"""

from iwae.errors import needs_extra

needs_extra("sklearn", "sklearn")

from iwae.sklearn.density import IWAEDensity  # noqa: E402
from iwae.sklearn.imputer import IWAEImputer  # noqa: E402

__all__ = ["IWAEDensity", "IWAEImputer"]
