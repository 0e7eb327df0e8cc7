"""The chapter in FastAPI, as a good FastAPI developer would write it, for comparison."""
