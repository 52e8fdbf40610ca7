"""Moving in and out (XEP-0227): accounts and all they have, from other servers and to them."""
