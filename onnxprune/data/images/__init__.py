"""Images: folders and data sets of them, how they become inputs, and augmentation."""
