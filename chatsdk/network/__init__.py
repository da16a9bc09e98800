"""How the network is, and what is still possible over it: quality from real traffic, and features that fall back."""
