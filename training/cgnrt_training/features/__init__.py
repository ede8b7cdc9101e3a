"""Networks of others, frozen, whose features serve losses and discriminators."""
