"""The memory of a search, in Optuna's study: trials, visits, claims of other controllers."""
