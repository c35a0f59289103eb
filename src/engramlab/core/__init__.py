"""What every experiment shares; knows no experiment."""
