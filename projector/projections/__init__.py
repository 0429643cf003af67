"""One file per view: what each event changes, and by what the view can be found."""
