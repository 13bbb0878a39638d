"""The stages: each loads its inputs, calls one pure function and saves what that returns."""
