"""What is measured: accuracy, attack success and their statistics."""
