"""The report as one HTML file that needs nothing else: plots, and the tables behind them."""
