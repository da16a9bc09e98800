"""How one request travels: the chain of middlewares, the plugins it is made of, and the transport at its end."""
