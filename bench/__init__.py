"""Side-by-side measurements: what is compared runs in one invocation, on the same rows, alternating."""
