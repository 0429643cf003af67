"""What a deployment needs before it starts: users, rights and certificates."""
