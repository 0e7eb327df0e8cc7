"""Sites with a user model of their own, as Django allows them."""
