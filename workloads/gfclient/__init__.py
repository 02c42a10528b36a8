"""gfclient: download files from a GETFILE server, or measure one."""
