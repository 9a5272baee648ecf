package dockerfile

import (
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/linter"
)

// maxPorts is how many ports one EXPOSE can mean: all of each protocol.
const maxPorts = 3 << 16

// parsePorts reads [ip:][host:]port[-port][/proto] and spells out ranges: "80/tcp".
func (s *Scope) parsePorts(m *meta, raw []string) ([]string, error) {
	var out []string
	for _, r := range raw {
		first, last, proto, err := s.parsePort(m, r)
		if err != nil {
			return nil, err
		}
		if len(out)+last-first+1 > maxPorts {
			return nil, fmt.Errorf("expose more than %d ports: %w", maxPorts, ErrTooLarge)
		}
		for p := first; p <= last; p++ {
			out = append(out, strconv.Itoa(p)+"/"+proto)
		}
	}
	return out, nil
}

func (s *Scope) parsePort(m *meta, raw string) (first, last int, proto string, err error) {
	ip, host, container := splitPort(raw)
	container, proto, _ = strings.Cut(container, "/")
	if container == "" {
		return 0, 0, "", fmt.Errorf("invalid port: %q: no port specified", raw)
	}
	if proto == "" {
		proto = "tcp"
	}
	lower := strings.ToLower(proto)
	if lower != "tcp" && lower != "udp" && lower != "sctp" {
		return 0, 0, "", fmt.Errorf("invalid port: %q: invalid proto: %s", raw, proto)
	}
	if lower != proto {
		s.lint.run(&linter.RuleExposeProtoCasing, m, linter.RuleExposeProtoCasing.Format(raw))
	}
	if ip != "" || host != "" {
		s.lint.run(&linter.RuleExposeInvalidFormat, m, linter.RuleExposeInvalidFormat.Format(raw))
	}
	if ip != "" && net.ParseIP(strings.Trim(ip, "[]")) == nil {
		return 0, 0, "", fmt.Errorf("invalid IP address: %s", ip)
	}
	if first, last, err = portRange(container); err != nil {
		return 0, 0, "", fmt.Errorf("invalid containerPort: %s: %w", container, err)
	}
	if host != "" {
		h1, h2, err := portRange(host)
		if err != nil {
			return 0, 0, "", fmt.Errorf("invalid hostPort: %s: %w", host, err)
		}
		if h2-h1 != last-first && last != first {
			return 0, 0, "", fmt.Errorf("invalid ranges specified for container and host Ports: %s and %s", container, host)
		}
	}
	return first, last, lower, nil
}

func splitPort(raw string) (ip, host, container string) {
	parts := strings.Split(raw, ":")
	switch n := len(parts); n {
	case 1:
		return "", "", raw
	case 2:
		return "", parts[0], parts[1]
	default:
		return strings.Join(parts[:n-2], ":"), parts[n-2], parts[n-1]
	}
}

func portRange(s string) (first, last int, err error) {
	a, b, ranged := strings.Cut(s, "-")
	if first, err = portNumber(a); err != nil || !ranged {
		return first, first, err
	}
	if last, err = portNumber(b); err != nil {
		return 0, 0, err
	}
	if last < first {
		return 0, 0, errors.New("the range ends before it starts")
	}
	return first, last, nil
}

func portNumber(s string) (int, error) {
	n, err := strconv.ParseUint(s, 10, 16)
	if err != nil {
		return 0, fmt.Errorf("%q is no port from 0 to 65535", s)
	}
	return int(n), nil
}
