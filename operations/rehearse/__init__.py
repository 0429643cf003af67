"""`diptych rehearse`: the installed code runs over the recorded events, without effects, and is compared."""
