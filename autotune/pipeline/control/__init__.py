"""The controller's side of the ranks: starts them, asks them, learns how they ended. No torch."""
