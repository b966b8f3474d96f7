"""One federated method each: its parameters, and what it adds to a party's round."""
