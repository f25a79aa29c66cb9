"""What a search keeps, in Optuna's study: trials, visits, claims of other controllers."""
