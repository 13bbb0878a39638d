"""What networks share: their interface, how they run, augmentation and training."""
