"""Offer the metric 'forecast-error' to trainkit."""

from __future__ import annotations

from typing import Any

from trainkit import hookimpl


@hookimpl
def trainkit_metric() -> Any:
    from .forecast_error import ForecastError

    return ForecastError
