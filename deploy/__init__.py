"""What a deployment of Diptych takes from the repository."""
