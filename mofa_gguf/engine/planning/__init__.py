"""What a model will take, where it goes and with which parameters: known before it is loaded."""
