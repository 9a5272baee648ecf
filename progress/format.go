package progress

import (
	"fmt"
	"time"
)

// stamp formats the time of a log line: always about four digits.
func stamp(d time.Duration) string {
	sec := max(d.Seconds(), 0)
	switch {
	case sec < 10:
		return fmt.Sprintf("%.3f", sec)
	case sec < 100:
		return fmt.Sprintf("%.2f", sec)
	}
	return fmt.Sprintf("%.1f", sec)
}

// size formats a number of bytes in powers of 1000, as docker does: 512B, 1.20MB.
func size(n int64) string {
	if n < 1000 {
		return fmt.Sprintf("%dB", n)
	}
	v, units := float64(n)/1000, "kMGTPE"
	i := 0
	for v >= 1000 && i < len(units)-1 {
		v /= 1000
		i++
	}
	return fmt.Sprintf("%.2f%cB", v, units[i])
}

// amount formats how much of a status is done; "" when nothing is known.
func (st *status) amount() string {
	switch {
	case st.total != 0:
		return size(st.current) + " / " + size(st.total)
	case st.current != 0:
		return size(st.current)
	}
	return ""
}
