"""The same work as users of other libraries would write it; `fraudstream bench pipeline` runs them."""
