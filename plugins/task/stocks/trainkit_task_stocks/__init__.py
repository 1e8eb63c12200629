"""Forecasts of stock prices from OHLCV files."""
