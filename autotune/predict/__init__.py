"""Pure arithmetic, no torch: schedules as data, simulator, memory, Profile x Candidate -> Prediction."""
