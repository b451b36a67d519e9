"""HTTP to addresses that users choose: each one is checked when it is connected to, and at each redirect."""
