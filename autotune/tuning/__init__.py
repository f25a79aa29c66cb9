"""The parts of the main job, which tune.py puts together: what it needs, learns, finds and concludes."""
