"""Files for deployments of Diptych."""
