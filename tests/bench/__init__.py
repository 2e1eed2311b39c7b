"""`make bench`: what envbridge costs, each figure beside a reference measured in the same run."""
